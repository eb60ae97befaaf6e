"""Measure how fast a folder of images becomes batches: listing, first pass, later passes, streaming; prints JSON.

    python benchmarks/decoding.py [--images 10000] [--side 256] [--size 64] [--workers N] [--files 0] [--out FILE.json]

Makes JPEGs of photograph-like noise in a temporary folder. With --files N it also lists a folder of N empty files.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cardigan.config_parts import DataConfig
from cardigan.data.batches import Batches
from cardigan.data.datasets import open_datasets
from cardigan.data.formats.detection import open_reader

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CARDIGAN_CACHE"] = f"{temporary}/cache"
        folder = Path(temporary) / "images"
        kilobytes = write_images(folder, options.images, options.side)
        result = {
            "images": options.images,
            "side": options.side,
            "size": options.size,
            "kilobytes_each": kilobytes,
            **measure(folder, options),
        }
        if options.files:
            result |= time_listing(Path(temporary) / "empty", options.files)
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def write_images(folder: Path, count: int, side: int) -> float:
    """Write images with a photograph-like spectrum (less contrast at small scales); return their mean size in kB."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        scales = [rng.normal(size=(side >> step, side >> step, 3)) * 2**step for step in range(1, 7)]
        total = np.sum(
            [
                np.kron(scale, np.ones((1 << step, 1 << step, 1)))
                for step, scale in zip(range(1, 7), scales, strict=True)
            ],
            axis=0,
        )
        Image.fromarray((128 + 1.2 * total).clip(0, 255).astype(np.uint8)).save(folder / f"{number:06}.jpg", quality=90)
    return round(sum(entry.stat().st_size for entry in os.scandir(folder)) / count / 1000, 1)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    data = DataConfig(
        source=str(folder),
        height=options.size,
        width=options.size,
        channels=3,
        resize="crop",
        num_workers=options.workers,
    )
    listing = timed(lambda: open_reader(str(folder)))
    first = timed(lambda: open_datasets(data))
    second = timed(lambda: open_datasets(data))
    batches = Batches(open_datasets(data).train, data, seed=0)
    steps = options.images // BATCH
    later = timed(lambda: [batches.batch_at(step * BATCH, BATCH) for step in range(steps)])
    streamed = open_datasets(DataConfig(**{**vars(data), "cache": "none"})).make_stream
    assert streamed is not None
    stream = streamed(0, BATCH, slice(0, BATCH))(0)
    next(stream)
    streaming = timed(lambda: [next(stream) for _ in range(steps)])
    stream.close()
    return {
        **{"listing_seconds": round(listing, 3), "first_pass_images_per_second": round(options.images / first)},
        **{"second_opening_seconds": round(second, 3), "later_passes_images_per_second": round(steps * BATCH / later)},
        **{"streaming_images_per_second": round(steps * BATCH / streaming), "threads": torch.get_num_threads()},
    }


def time_listing(folder: Path, count: int) -> dict[str, float]:
    for start in range(0, count, 1000):
        subfolder = folder / f"{start:07}"
        subfolder.mkdir(parents=True)
        for number in range(start, min(start + 1000, count)):
            (subfolder / f"{number:07}.jpg").touch()
    return {"files": count, "listing_them_seconds": round(timed(lambda: open_reader(str(folder))), 2)}


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
