"""Write docs/leaderboard.md and its charts from the results in benchmarks/results/.

    python benchmarks/leaderboard.py [--results benchmarks/results] [--out docs/leaderboard.md]

Reads `bench-*.json`, which `cardigan bench` writes, and `rivals-*.json` of `benchmarks/rivals/compare.py`. A changed
file is refused by its checksum.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from cardigan.bench.record import read_record
from cardigan.bench.rungs import RUNGS
from cardigan.figures.curves import Line, line_chart
from cardigan.files import atomic

HEAD = """# Leaderboard

How long training takes until a fixed score, for anyone to run and beat. Made by `python benchmarks/leaderboard.py` from
the files in `benchmarks/results/`; do not edit.

**To hand in a result**, run `cardigan bench --rung RUNG` (five seeds) on an otherwise idle machine and open a pull
request with the JSON file in `benchmarks/results/`. Another recipe, plug-in or version is welcome: say in the pull
request how to install it. `cardigan bench --check FILE` repeats the first seed anywhere; results that nobody else can
repeat are not listed. Seconds do not include the scoring of checkpoints. The machine's own speed, measured in the same
run, stands beside each time.
"""


RIVALS_TEXT = """What a user might pick instead (`benchmarks/rivals/`): the same images, the same training time on the
same machine, one model per core, 1,000 samples each. `images` is Cardigan's recipe, `dcgan` a plain DCGAN as
tutorials write it (batch 128); `edm`, `flow` and `meanflow` share one U-Net (batch 32, learning rate 1e-3). Rivals
were not tuned. Of the numbers of sampling steps that were tried, the one with the lowest distance is shown. Recall
tells variety. Authenticity tells copies of training images (1: none, which noise has too), duplicates tell samples
that repeat each other (0: none). Made with `python benchmarks/rivals/compare.py --set SET --minutes 5,15`."""
MIN_INTEGER = 1_000
"""Numbers from here on have no decimals."""
STYLE = 'style="background: white; font: 11px sans-serif; fill: #4a5568" stroke-linejoin="round"'
"""Of a chart that stands alone."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/leaderboard.md"))
    options = parser.parse_args()
    records = [read_record(path) for path in sorted(options.results.glob("bench-*.json"))]
    rivals = [row for path in sorted(options.results.glob("rivals-*.json")) for row in json.loads(path.read_text())]
    charts = options.out.parent / "images"
    sections = [HEAD]
    for name in RUNGS:
        of_rung = [record for record in records if record["rung"] == name]
        sections.append("\n".join(rung_lines(name, of_rung, charts)))
    if rivals:
        sections.append("\n".join(rival_lines(rivals)))
    atomic.write_bytes(options.out, ("\n".join(sections).rstrip() + "\n").encode())
    print(options.out)


def rung_lines(name: str, records: list[dict[str, Any]], charts: Path) -> list[str]:
    """Return the section of a rung, fastest result first, and write its chart."""
    rung = RUNGS[name]
    lines = [f"## {name}", "", f"{rung.purpose}. Target: {rung.target:g}. {rung.score}.", ""]
    if not records:
        return [*lines, "No result yet.", ""]
    lines += ["| recipe | seconds | images | machine | its speed |", "|---|---|---|---|---|"]
    for record in sorted(records, key=median_seconds):
        summary, machine = record["summary"], record["machine"]
        reached = f"{summary['num_reached']} of {summary['num_seeds']} seeds"
        seconds = (
            spread(summary["seconds"]) if summary["num_reached"] else f"not in {record['limit_minutes']:g} minutes"
        )
        images = spread(summary["images"]) if summary["num_reached"] else ""
        lines.append(
            f"| {record['recipe']} | {seconds} ({reached}) | {images} | {machine_text(machine)}, {record['date']} | "
            f"{speed_text(machine)} |"
        )
    chart = charts / f"leaderboard-{name}.svg"
    curves = [
        Line(record["recipe"], [point[1] for point in curve], [point[2] for point in curve])
        for record in sorted(records, key=median_seconds)
        if (curve := record["seeds"][0]["curve"])
    ]
    svg = line_chart(f"{name}: score against seconds", curves, log_scale=True, x_label="seconds")
    atomic.write_bytes(chart, standalone(svg).encode())
    return [*lines, "", f"![Score against seconds, seed 0](images/{chart.name})", ""]


def machine_text(machine: dict[str, Any]) -> str:
    threads = machine["num_threads"]
    return f"{machine['cpu']}, {threads} {'thread' if threads == 1 else 'threads'}"


def speed_text(machine: dict[str, Any]) -> str:
    return ", ".join(f"{value:g} {key.replace('_', ' ')}" for key, value in machine["calibration"].items())


def standalone(svg: str) -> str:
    """Return a chart that shows outside of a page, which would style it."""
    svg = svg.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" {STYLE} ', 1)
    return svg.replace('class="grid"', 'stroke="#e2e8f0"').replace('class="title"', 'font-weight="600"')


def median_seconds(record: dict[str, Any]) -> float:
    """Return the median time; a result that never reached the target comes last."""
    return record["summary"]["seconds"]["median"] if record["summary"]["num_reached"] else float("inf")


def spread(values: dict[str, float]) -> str:
    return f"{values['median']:,.0f} ({values['low']:,.0f}-{values['high']:,.0f})"


def rival_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table for each set: every rival at each time with its best number of sampling steps, best first."""
    lines = ["## Rivals", "", RIVALS_TEXT, ""]
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        distance = next(key for key in of_set[0] if key.startswith("fd_"))
        columns = {
            **{distance: "Frechet distance", distance.replace("fd_", "kd_"): "KID", "recall": "recall"},
            **{"authenticity": "authenticity", "duplicate_rate": "duplicates"},
            **{"samples_per_second": "samples a second", "weights": "weights", "images": "images seen"},
        }
        lines += [f"### {name}", "", f"| minutes | model | steps | {' | '.join(columns.values())} |"]
        lines += ["|" + "---|" * (3 + len(columns))]
        for minutes in sorted({row["minutes"] for row in of_set}):
            at_time = [row for row in of_set if row["minutes"] == minutes]
            rivals = dict.fromkeys(row["rival"] for row in at_time)
            best = [best_steps([row for row in at_time if row["rival"] == rival], distance) for rival in rivals]
            for group in sorted(best, key=lambda group: median(group, distance)):
                cells = [text([row[column] for row in group]) for column in columns]
                lines.append(f"| {minutes:g} | {group[0]['rival']} | {group[0]['steps']} | {' | '.join(cells)} |")
        machines = {machine_text(row["machine"]): speed_text(row["machine"]) for row in of_set}
        had = (f"Each model had: {machine}{speed and f' ({speed})'}." for machine, speed in machines.items())
        lines += ["", *had, ""]
    return lines


def best_steps(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """Return the rows of the number of sampling steps that has the lowest median over seeds."""
    by_steps = [[row for row in rows if row["steps"] == steps] for steps in {row["steps"] for row in rows}]
    return min(by_steps, key=lambda group: median(group, column))


def median(rows: list[dict[str, Any]], column: str) -> float:
    return statistics.median(row[column] for row in rows)


def text(values: list[float]) -> str:
    """Return the median, with the range over seeds if there are several."""
    middle = f"{statistics.median(values):,.3g}" if max(values) < MIN_INTEGER else f"{statistics.median(values):,.0f}"
    return middle if min(values) == max(values) else f"{middle} ({min(values):,.3g}-{max(values):,.3g})"


if __name__ == "__main__":
    main()
