"""The training images of the starters, made from what package registries offer or drawn by a program; cached.

    python packages/starters/sets.py icons avatars letters textures

Prints the folder of each set. Needs npm and Node.js, except for textures.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from cardigan.files.disk_cache import cache_dir
from image_sets import image_set

FONTS = (
    *("roboto", "lato", "merriweather", "lora", "oswald", "raleway", "nunito", "playfair-display", "source-code-pro"),
    *("inconsolata", "pt-serif", "cabin", "quicksand", "josefin-sans", "arvo", "bitter", "exo-2", "comfortaa"),
    *("crimson-text", "libre-baskerville", "work-sans", "fira-sans", "dm-sans", "caveat", "pacifico"),
    *("courier-prime", "space-grotesk", "eb-garamond", "zilla-slab"),
)
"""Packages @fontsource/NAME of freely licensed fonts: the SIL Open Font License 1.1; Roboto under it too since
version 3."""
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_SIDE, LETTERS_PER_FONT = 32, 6
TEXTURE_SIDE, NUM_TEXTURES = 64, 3_000
AVATAR_SETS = ("adventurer-1500-64", "lorelei-1500-64", "micah-1500-64")
ICON_SETS = ("icons", "icons-google")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=sorted(SETS))
    for name in parser.parse_args().sets:
        print(starter_set(name))


def starter_set(name: str) -> Path:
    """Return the folder of a set, made if it is not cached."""
    folder = cache_dir() / "starter-sets" / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            made = Path(work) / name
            made.mkdir()
            SETS[name](made)
            shutil.move(made, folder)
    return folder


def collect(folder: Path, names: tuple[str, ...]) -> None:
    """Link the images of several sets into one folder."""
    for name in names:
        for image in sorted(image_set(name).iterdir()):
            os.link(image, folder / f"{name}-{image.name}")


def draw_letters(folder: Path) -> None:
    """Draw digits and capital letters: one folder for each class, light on dark, slightly turned and sized."""
    tools = cache_dir() / "starter-sets" / "fonts"
    if not (tools / "node_modules").exists():
        tools.mkdir(parents=True, exist_ok=True)
        (tools / "package.json").write_text("{}")
        packages = [f"@fontsource/{name}" for name in FONTS]
        subprocess.run(["npm", "install", "--silent", *packages], cwd=tools, check=True)
    random = np.random.default_rng(0)
    files = [
        file
        for name in FONTS
        for weight in ("400", "700")
        if (
            file := tools / "node_modules" / "@fontsource" / name / "files" / f"{name}-latin-{weight}-normal.woff"
        ).exists()
    ]
    for character in CHARACTERS:
        (folder / character).mkdir()
        for number, file in enumerate(files):
            for copy in range(LETTERS_PER_FONT):
                image = draw_letter(character, file, random)
                image.save(folder / character / f"{number:03d}-{copy}.png")


def draw_letter(character: str, font: Path, random: np.random.Generator) -> Image.Image:
    """Return one character, drawn large and shrunk."""
    side = 4 * LETTER_SIDE
    image = Image.new("L", (side, side))
    drawing, size = ImageDraw.Draw(image), float(random.uniform(0.72, 0.9)) * side
    drawing.text((side / 2, side / 2), character, fill=255, font=ImageFont.truetype(str(font), size), anchor="mm")
    image = image.rotate(float(random.normal(0, 4)), Image.Resampling.BICUBIC)
    return image.resize((LETTER_SIDE, LETTER_SIDE), Image.Resampling.LANCZOS)


def draw_textures(folder: Path) -> None:
    """Draw textures of five kinds, one folder for each, every one in two or three colors of its own."""
    for kind in TEXTURES:
        (folder / kind.__name__).mkdir()
    for number in range(NUM_TEXTURES):
        random = np.random.default_rng(number)
        kind = TEXTURES[number % len(TEXTURES)]
        values = kind(random)
        values = (values - values.min()) / max(float(np.ptp(values)), 1e-6)
        colors = random.uniform(0, 1, (3, 3)) ** 0.8
        low, middle, high = colors[np.argsort(colors.sum(1))]
        below, above = np.clip(2 * values, 0, 1)[..., None], np.clip(2 * values - 1, 0, 1)[..., None]
        rgb = low + (middle - low) * below + (high - middle) * above
        Image.fromarray((255 * rgb.clip(0, 1)).round().astype(np.uint8)).save(
            folder / kind.__name__ / f"{number:05d}.png"
        )


def grid() -> tuple[np.ndarray, np.ndarray]:
    axis = np.linspace(-1, 1, TEXTURE_SIDE)
    return np.meshgrid(axis, axis)


def clouds(random: np.random.Generator) -> np.ndarray:
    """Noise with a spectrum that falls as a power of the frequency."""
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(TEXTURE_SIDE),) * 2)) + 1 / TEXTURE_SIDE
    spectrum = np.fft.fft2(random.normal(size=(TEXTURE_SIDE, TEXTURE_SIDE))) / frequency ** random.uniform(1.2, 2.2)
    return np.real(np.fft.ifft2(spectrum))


def cells(random: np.random.Generator) -> np.ndarray:
    """The distance to the nearest of random points, or to the border between two (Worley noise)."""
    x, y = grid()
    points = random.uniform(-1.2, 1.2, (int(random.integers(12, 60)), 2))
    distances = np.sort(np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1]), axis=-1)
    return distances[..., 0] if random.uniform() < 0.5 else np.minimum(distances[..., 1] - distances[..., 0], 0.15)


def waves(random: np.random.Generator) -> np.ndarray:
    """The sum of a few plane waves."""
    x, y = grid()
    total = np.zeros_like(x)
    for _ in range(int(random.integers(1, 4))):
        angle, frequency = random.uniform(0, np.pi), random.uniform(4, 20)
        total += np.sin(frequency * (x * np.cos(angle) + y * np.sin(angle)) + random.uniform(0, 2 * np.pi))
    return total


def wood(random: np.random.Generator) -> np.ndarray:
    """Rings around a point, bent by clouds."""
    x, y = grid()
    center, bend = random.uniform(-1.5, 1.5, 2), clouds(random)
    return np.sin(random.uniform(8, 24) * np.hypot(x - center[0], (y - center[1]) * 0.6) + 1.5 * bend / bend.std())


def bricks(random: np.random.Generator) -> np.ndarray:
    """Rows of stones, every second one shifted, each with a shade of its own."""
    x, y = grid()
    rows, columns = int(random.integers(4, 10)), int(random.integers(2, 6))
    row = np.floor((y + 1) / 2 * rows)
    along = (x + 1) / 2 * columns + 0.5 * (row % 2)
    shades = random.uniform(0.5, 1, (rows + 1, columns + 2))
    stone = shades[row.astype(int).clip(0, rows), np.floor(along).astype(int).clip(0, columns + 1)]
    joint = (np.abs((y + 1) / 2 * rows % 1 - 0.5) > 0.44) | (np.abs(along % 1 - 0.5) > 0.47)
    return np.where(joint, 0.0, stone)


TEXTURES = (clouds, cells, waves, wood, bricks)
SETS = {
    "icons": lambda folder: collect(folder, ICON_SETS),
    "avatars": lambda folder: collect(folder, AVATAR_SETS),
    "letters": draw_letters,
    "textures": draw_textures,
}

if __name__ == "__main__":
    main()
