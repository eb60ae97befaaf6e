"""Install a built wheel or sdist in an empty environment and use it, away from the repository.

    python tests/release/smoke.py dist/cardigan-0.2.0-py3-none-any.whl
                                   [--constraints constraints.txt] [--python python3]

Trains on 1,000 images, samples, exports a page and safetensors, opens the studio's page, and loads the model in Python.
Ends with exit code 1 at the first step that fails.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

COMMANDS = (
    "--version",
    "train mnist --images 1000 --out runs/run --quiet",
    "sample runs/run -n 4 --out four.png",
    "info runs/run",
    "export runs/run --format safetensors --out digits.safetensors",
    "export runs/run --format html --out digits.html",
)
PYTHON = (
    "import cardigan; images = cardigan.load('digits.safetensors').sample(4); assert images.shape == (4, 32, 32, 1); "
    "assert 'site-packages' in cardigan.__file__, cardigan.__file__"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--constraints", type=Path)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.python == sys.executable:
            venv.create(folder / "venv", with_pip=True)
        else:
            subprocess.run([options.python, "-m", "venv", folder / "venv"], check=True)
        bin_folder = folder / "venv" / "bin"
        constraints = ["-c", str(options.constraints.resolve())] if options.constraints else []
        install = [bin_folder / "python", "-m", "pip", "install", "--quiet", *constraints]
        subprocess.run([*install, f"{options.file.resolve()}[studio]"], check=True, cwd=folder)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        for words in COMMANDS:
            print(f"cardigan {words}", flush=True)
            subprocess.run([bin_folder / "cardigan", *words.split()], check=True, cwd=folder, env=environment)
        check_studio(bin_folder / "cardigan", folder, environment)
        subprocess.run([bin_folder / "python", "-c", PYTHON], check=True, cwd=folder, env=environment)
    print(f"{options.file.name}: installed and used.")


def check_studio(program: Path, folder: Path, environment: dict[str, str]) -> None:
    """Start the studio and load its page."""
    command = [program, "studio", "--no-open", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as studio:
        assert studio.stdout is not None
        address = next((found[0] for line in studio.stdout if (found := re.search(r"http://[\w.:]+/?", line))), "")
        try:
            with urllib.request.urlopen(address, timeout=60) as page:
                assert b"<title>" in page.read()
        finally:
            studio.terminate()


if __name__ == "__main__":
    main()
