"""Image sets for benchmarks, made from what package registries offer, cached outside the repository.

    python benchmarks/image_sets.py icons
    python benchmarks/image_sets.py avatars-1000-64 [avatars-300-64 avatars-10000-128 lorelei-1000-64 ...]

Prints the folder of each set. `icons` are the 3,786 Twemoji icons of 64x64 RGBA (npm `emoji-datasource-twitter`,
CC BY 4.0), `icons-google` Noto's (Apache-2.0). `STYLE-COUNT-SIDE` are cartoon faces drawn by DiceBear (npm
`@dicebear/collection`) in one of `STYLES`; `avatars` stands for `adventurer` (CC BY 4.0). Needs npm and Node.js.
"""

import argparse
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from cardigan.files.disk_cache import cache_dir

ICON_PACKAGES = {"icons": "emoji-datasource-twitter@16.0.0", "icons-google": "emoji-datasource-google@16.0.0"}
AVATAR_PACKAGES = ("@dicebear/core@9.4.0", "@dicebear/collection@9.4.0", "@resvg/resvg-js@2.6.2")
STYLES = {
    **{"avatars": "adventurer", "adventurer": "adventurer", "lorelei": "lorelei", "micah": "micah"},
    "personas": "personas",
}
"""Adventurer by Lisa Wischofsky (CC BY 4.0), Lorelei by the same (CC0 1.0), Micah by Micah Lanier (CC BY 4.0), Personas
by Draftbit (CC BY 4.0)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    for name in parser.parse_args().sets:
        print(image_set(name))


def image_set(name: str) -> Path:
    """Return the folder of a set, made if it is not cached."""
    folder = cache_dir() / "image-sets" / name
    if not folder.exists():
        for program in ("npm", "node"):
            if shutil.which(program) is None:
                raise SystemExit(f"The image set {name} needs {program}, which was not found: install Node.js first.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            made = make_icons(name, Path(work)) if name in ICON_PACKAGES else make_avatars(name, Path(work))
            shutil.move(made, folder)
    return folder


def make_icons(name: str, work: Path) -> Path:
    """Return the folder with the PNGs of 64x64 of an icon package."""
    package = ICON_PACKAGES[name]
    packed = subprocess.run(["npm", "pack", "--json", package], cwd=work, check=True, capture_output=True, text=True)
    with tarfile.open(work / json.loads(packed.stdout)[0]["filename"]) as archive:
        archive.extractall(work, filter="data")
    vendor = package.split("@")[0].rpartition("-")[2]
    return work / "package" / "img" / vendor / "64"


def make_avatars(name: str, work: Path) -> Path:
    """Return a folder of avatars in the style, number and size that the name gives."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] not in STYLES or not (parts[1].isdecimal() and parts[2].isdecimal()):
        known = ", ".join([*ICON_PACKAGES, *(f"{style}-COUNT-SIDE" for style in STYLES)])
        raise SystemExit(f"There is no image set {name!r}: expected one of {known}.")
    tools = cache_dir() / "image-sets" / "dicebear"
    if not (tools / "node_modules").exists():
        tools.mkdir(parents=True, exist_ok=True)
        (tools / "package.json").write_text("{}")
        subprocess.run(["npm", "install", "--silent", *AVATAR_PACKAGES], cwd=tools, check=True)
    script = Path(__file__).with_name("avatars.mjs").resolve()
    subprocess.run(["node", script, STYLES[parts[0]], parts[1], parts[2], work / name], cwd=tools, check=True)
    return work / name


if __name__ == "__main__":
    main()
