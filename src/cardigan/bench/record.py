"""A result of `cardigan bench` as one JSON file: what was run, on what, every seed, and a checksum.

The checksum detects changes, not forgery: what proves a result is that another machine gets it too.
"""

import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cardigan.errors import CardiganError
from cardigan.files import atomic
from cardigan.models.pretrained import read_json

FORMAT = 1
SPREAD_NAMES = ("seconds", "cpu_seconds", "images", "peak_megabytes", "seconds_per_1000_samples")
"""What is summarized by the median and the range over the seeds that reached the target."""


def make_record(facts: dict[str, Any], seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a result with its summary and checksum."""
    reached = [seed for seed in seeds if seed["reached"]]
    summary = {
        "num_seeds": len(seeds),
        "num_reached": len(reached),
        **{name: spread([seed[name] for seed in reached]) for name in SPREAD_NAMES if reached},
    }
    return seal({"format": FORMAT, **facts, "seeds": seeds, "summary": summary})


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with its checksum."""
    return {**record, "sha256": checksum(record)}


def checksum(record: dict[str, Any]) -> str:
    """Return the SHA-256 of a result without its own checksum, as canonical JSON."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def spread(values: Sequence[float | int]) -> dict[str, float | int]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def median_seconds(record: dict[str, Any]) -> float:
    """Return the median over all seeds that were asked for; one that missed the target counts as infinitely long."""
    reached = [seed["seconds"] for seed in record["seeds"] if seed["reached"]]
    missing = max(num_seeds(record), len(record["seeds"])) - len(reached)
    return statistics.median([*reached, *[math.inf] * missing])


def num_seeds(record: dict[str, Any]) -> int:
    """Return how many seeds were asked for."""
    return record.get("num_seeds_asked", len(record["seeds"]))


def write_record(path: Path, record: dict[str, Any]) -> None:
    atomic.write_bytes(path, (json.dumps(record, indent=1) + "\n").encode())


def read_record(path: Path, rows: str = "seeds") -> dict[str, Any]:
    """Return a result; raises CardiganError for anything else, and for one that was changed.

    `rows` is the name of the list that it has.
    """
    record = read_json(path)
    if record.get("format") != FORMAT or not isinstance(record.get(rows), list):
        raise CardiganError(f"{path} is not a result of cardigan bench: give the JSON file that it wrote.")
    if record.get("sha256") != checksum(record):
        raise CardiganError(f"{path} was changed after it was written, its checksum differs: get it again.")
    return record
