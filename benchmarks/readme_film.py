"""Make the moving picture of the README from the sample sheets of runs, side by side.

    python benchmarks/readme_film.py runs/digits runs/icons [runs/avatars] --out docs/images/training.webp

Each run gives a block of 4 x 4 images: the first ones of its sheets, never picked. The time of a run is spread over the
film, so all runs begin and end together; the last frame is each run's last sheet, and stays for two seconds. The sheets
of long runs are thinned evenly.
"""

import argparse
from pathlib import Path

from PIL import Image

from cardigan.figures.layout import GAP
from cardigan.files import atomic
from cardigan.run.directory import RunDirectory, read_config

ROWS = COLUMNS = 4
BLOCK_SIDE, MARGIN = 256, 12
"""Pixels of a block and between blocks."""
NUM_FRAMES, FRAME_MILLISECONDS, LAST_MILLISECONDS = 36, 140, 2_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/training.webp"))
    parser.add_argument("--quality", type=int, default=70)
    options = parser.parse_args()
    blocks = [[block(sheet, run) for sheet in sheets(run)] for run in options.runs]
    size = (len(blocks) * (BLOCK_SIDE + MARGIN) - MARGIN, BLOCK_SIDE)
    frames = []
    for number in range(NUM_FRAMES):
        frame = Image.new("RGB", size, "white")
        for column, images in enumerate(blocks):
            frame.paste(
                images[round(number / (NUM_FRAMES - 1) * (len(images) - 1))], (column * (BLOCK_SIDE + MARGIN), 0)
            )
        frames.append(frame)
    durations = [FRAME_MILLISECONDS] * (NUM_FRAMES - 1) + [LAST_MILLISECONDS]
    with atomic.atomic_path(options.out) as temporary:
        frames[0].save(
            temporary, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=0,
            quality=options.quality, method=6,
        )  # fmt: skip
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {NUM_FRAMES} frames")


def sheets(run: Path) -> list[Path]:
    """Return the sample sheets of a run, oldest first."""
    return sorted((run / "samples").glob("[0-9]*.png"))


def block(sheet: Path, run: Path) -> Image.Image:
    """Return the first generated images of a sheet, on white."""
    data = read_config(RunDirectory(run)).data
    with Image.open(sheet) as image:
        rgba = image.convert("RGBA")
    crop = rgba.crop((0, 0, COLUMNS * (data.width + GAP) - GAP, ROWS * (data.height + GAP) - GAP))
    white = Image.new("RGBA", crop.size, "white")
    smooth = Image.Resampling.LANCZOS if crop.width > BLOCK_SIDE else Image.Resampling.NEAREST
    return Image.alpha_composite(white, crop).convert("RGB").resize((BLOCK_SIDE, BLOCK_SIDE), smooth)


if __name__ == "__main__":
    main()
