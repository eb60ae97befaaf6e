"""Time the evaluation of 10,000 samples with all metrics of the digit extractor, and the 1-NN test on a stream.

    python benchmarks/evaluation.py MODEL [--samples 10000] [--stream 0] [--out FILE.json]

Prints the seconds of a first evaluation with an empty cache, which also computes real statistics and real baselines,
of a second one with a full cache, and of each metric. Sampling is included. With --stream N it also runs the 1-NN
test on N real digits sampled with replacement and prints the peak memory: the cost of N samples apart from generating
them.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from cardigan.metrics.evaluate import evaluate, generator_sampler
from cardigan.metrics.inputs import CHUNK_SIZE
from cardigan.metrics.neighbors import LabeledChunk, nn_errors
from cardigan.metrics.reference import Reference
from cardigan.metrics.reference_loader import load_reference
from cardigan.metrics.table import METRICS
from cardigan.models.snapshot import read_snapshot
from cardigan.rng import stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--stream", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    snapshot = read_snapshot(options.model)
    reference = load_reference(snapshot.config)
    sampler = generator_sampler(snapshot, reference)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CARDIGAN_CACHE"] = folder
        first = evaluate(sampler, reference, num_samples=options.samples)
        second = evaluate(sampler, reference, num_samples=options.samples)
        result = {
            "samples": options.samples,
            "threads": torch.get_num_threads(),
            "first_seconds": first.seconds,
            "second_seconds": second.seconds,
            "seconds_by_metric": {
                name: evaluate(sampler, reference, num_samples=options.samples, metrics=[name]).seconds
                for name in METRICS
                if name not in second.unavailable
            },
            "metrics": {name: measure.text for name, measure in second.metrics.items()},
        }
    if options.stream:
        result["stream"] = stream_nn_error(reference, options.stream)
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def stream_nn_error(reference: Reference, count: int) -> dict[str, float]:
    """Return error, seconds and peak memory of the 1-NN test on a stream of real digits."""

    def chunks() -> Iterator[LabeledChunk]:
        for start in range(0, count, CHUNK_SIZE):
            order = torch.randint(
                len(reference.train), (min(CHUNK_SIZE, count - start),), generator=stream(0, "judging benchmark", start)
            )
            yield reference.train[order], reference.train_labels[order]

    began = time.monotonic()
    error = float(nn_errors(reference.holdout, reference.holdout_labels, chunks()).mean())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {
        "samples": count,
        "error": error,
        "seconds": round(time.monotonic() - began, 1),
        "peak_gigabytes": round(peak, 2),
    }


if __name__ == "__main__":
    main()
