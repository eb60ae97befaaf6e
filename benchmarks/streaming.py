"""Stream synthetic images from tar shards; measure the speed, and that memory does not grow with their number.

    python benchmarks/streaming.py [--images 100000] [--per-shard 10000] [--bytes 2000] [--pace 4000] [--folder FOLDER]
        [--out FILE.json]

Writes the shards first: small JPEGs with equal bytes, each with a class. Then reads one epoch, at most `--pace`
entries per second as a training would. Reports for each tenth of the epoch the minimum and maximum memory of the
process and the entries per second. Nothing is decoded. Needs about (bytes + 2,000) x images of disk space.
"""

import argparse
import io
import itertools
import json
import platform
import resource
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cardigan.data.webdataset.shards import open_shards

NUM_REPORTS = 10
POLL_INTERVAL = 100
"""Entries between two memory measurements."""
MEGABYTE = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--per-shard", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=2000, help="approximate size of an image")
    parser.add_argument("--pace", type=float, default=4000, help="maximum entries per second")
    parser.add_argument(
        "--folder", type=Path, help="parent folder of the shards (default: the system's temporary folder)"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        begun = time.monotonic()
        source = write_shards(Path(folder), options.images, options.per_shard, jpeg(options.bytes))
        writing = time.monotonic() - begun
        result = {
            "command": " ".join(["python", *sys.argv]),
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
            "writing_seconds": round(writing, 1),
            **stream_epoch(source, options.images, options.pace, Path(folder) / "counts.json"),
        }
    text = json.dumps(result, indent=1)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


def jpeg(size: int) -> bytes:
    """Return a JPEG of noise of about this many bytes."""
    side, content = 8, b""
    while len(content) < size:
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(file, "JPEG")
        side, content = side + 4, file.getvalue()
    return content


def write_shards(folder: Path, images: int, per_shard: int, image: bytes) -> str:
    """Write the shards; return the source that names them."""
    shards = -(-images // per_shard)
    for shard in range(shards):
        with tarfile.open(folder / f"train-{shard:05}.tar", "w") as archive:
            for number in range(shard * per_shard, min(images, (shard + 1) * per_shard)):
                for name, content in ((f"{number:08}.jpg", image), (f"{number:08}.cls", str(number % 10).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return f"{folder}/train-{{00000..{shards - 1:05}}}.tar"


def stream_epoch(source: str, images: int, pace: float, counts: Path) -> dict[str, object]:
    """Read one epoch; return memory and speed in each tenth, and the time to resume from the middle."""
    shards = open_shards(source, counts)
    entries = shards.entries(0, 0)
    before, begun = resident_megabytes(), time.monotonic()
    parts, last = [], begun
    for part in range(NUM_REPORTS):
        start, end = images * part // NUM_REPORTS, images * (part + 1) // NUM_REPORTS
        memory = []
        for seen, _ in enumerate(itertools.islice(entries, end - start), start + 1):
            if seen % POLL_INTERVAL == 0:
                memory.append(resident_megabytes())
                time.sleep(max(0.0, begun + seen / pace - time.monotonic()))
        now = time.monotonic()
        parts.append(
            {
                "images": end,
                "rss_mb": [min(memory), max(memory)],
                "entries_per_second": round((end - start) / (now - last)),
            }
        )
        last = now
    peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE)
    entries.close()
    middle = time.monotonic()
    next(open_shards(source).entries(0, images // 2))
    return {
        "images": images,
        "images_counted": shards.count_images(),
        "rss_mb_before": before,
        "parts": parts,
        "rss_mb_peak": peak,
        "entries_per_second": round(images / (last - begun)),
        "resume_uncounted_seconds": round(time.monotonic() - middle, 2),
    }


def resident_megabytes() -> int:
    """Return the resident memory of this process (Linux only)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / MEGABYTE)


if __name__ == "__main__":
    main()
