"""Write docs/leaderboard.md and its charts from the results in benchmarks/results/.

    python benchmarks/leaderboard.py [--results benchmarks/results] [--out docs/leaderboard.md]

Reads `bench-*.json`, which `cardigan bench` writes, and `rivals-*.json` of `benchmarks/rivals/compare.py`. A file that
was changed, and a result of an unknown rung or of another target, are refused.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from cardigan.bench.record import median_seconds, num_seeds, read_record
from cardigan.bench.rungs import RUNGS
from cardigan.errors import CardiganError, unknown
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


RIVALS_TEXT = """What a user might pick instead (`benchmarks/rivals/`): the same images and the same training time,
1,000 samples each. `images` and `images-dcgan` are Cardigan's recipes, with and without a pretrained network in the
discriminator; `dcgan` is a plain DCGAN as tutorials write it; `edm`, `flow` and `meanflow` share one U-Net. Of the
sampling steps and batch sizes that were tried, those with the lowest distance are shown. The recipes were developed on
sets like these; what was tried with each rival is in [the lab book](lab-book.md).

The distance is over EfficientNet-Lite2 at 224x224, against all images of the set: another number than the score of
the rungs above. The discriminator of `images` learns from a smaller network of the same family, which may favor it;
the sliced Wasserstein distance (mean over scales) knows no network. Recall tells variety. Authenticity tells copies of
training images (1: none, which noise has too), duplicates tell samples that repeat each other (0: none). "Weights" are
those that sampling needs."""
MEAN_SCALE = "mean_swd"
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
    for record in records:
        check_record(record)
    rivals = [read_record(path, "rows") for path in sorted(options.results.glob("rivals-*.json"))]
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
    lines += [
        "| recipe | seconds | images | CPU seconds, with scoring | peak MB | generator MB | seconds for 1,000 samples "
        "| machine | its speed |",
        "|" + "---|" * 9,
    ]
    for record in sorted(records, key=median_seconds):
        summary, machine = record["summary"], record["machine"]
        reached = f"{summary['num_reached']} of {num_seeds(record)} seeds"
        seconds = (
            spread(summary["seconds"]) if summary["num_reached"] else f"not in {record['limit_minutes']:g} minutes"
        )
        images = spread(summary["images"]) if summary["num_reached"] else ""
        costs = [
            text([summary[name]["median"]]) if name in summary else ""
            for name in ("cpu_seconds", "peak_megabytes", "seconds_per_1000_samples")
        ]
        size = f"{record['seeds'][0]['generator_megabytes'] or 0:g}"
        lines.append(
            f"| {record['recipe']} | {seconds} ({reached}) | {images} | {costs[0]} | {costs[1]} | {size} | {costs[2]} "
            f"| {machine_text(machine)}, {record['date']} | {speed_text(machine)} |"
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
    """Return the GPU, or the CPU and its threads."""
    threads, device = machine["num_threads"], machine.get("device", "cpu")
    return device if device != "cpu" else f"{machine['cpu']}, {threads} {'thread' if threads == 1 else 'threads'}"


def speed_text(machine: dict[str, Any]) -> str:
    return ", ".join(f"{value:g} {key.replace('_', ' ')}" for key, value in machine["calibration"].items())


def check_record(record: dict[str, Any]) -> None:
    """Raise CardiganError for a result that cannot be compared with others of its rung."""
    rung = RUNGS.get(record["rung"])
    if rung is None:
        raise unknown("rung", record["rung"], RUNGS)
    if record["target"] != rung.target:
        raise CardiganError(
            f"A result of {record['recipe']} has the target {record['target']:g}, and {record['rung']} has "
            f"{rung.target:g}: measure it again."
        )


def standalone(svg: str) -> str:
    """Return a chart that shows outside of a page, which would style it."""
    svg = svg.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" {STYLE} ', 1)
    return svg.replace('class="grid"', 'stroke="#e2e8f0"').replace('class="title"', 'font-weight="600"')


def spread(values: dict[str, float]) -> str:
    return f"{values['median']:,.0f} ({values['low']:,.0f}-{values['high']:,.0f})"


def rival_lines(records: list[dict[str, Any]]) -> list[str]:
    """Return a table for each set: every rival at each time at its best, best first; and who was measured where."""
    lines = ["## Rivals", "", RIVALS_TEXT, ""]
    for name in dict.fromkeys(record["set"] for record in records):
        of_set = [record for record in records if record["set"] == name]
        rows = [with_mean_scale(row) for record in of_set for row in record["rows"]]
        distance = next(key for key in rows[0] if key.startswith("fd_"))
        columns = {
            **{distance: "Frechet distance", distance.replace("fd_", "kd_"): "KID", MEAN_SCALE: "sliced Wasserstein"},
            **{"recall": "recall", "authenticity": "authenticity", "duplicate_rate": "duplicates"},
            **{"samples_per_second": "samples a second", "weights": "weights", "images": "images seen"},
        }
        lines += [f"### {name}", "", f"| minutes | model | batch | steps | {' | '.join(columns.values())} |"]
        lines += ["|" + "---|" * (4 + len(columns))]
        for minutes in sorted({row["minutes"] for row in rows}):
            at_time = [row for row in rows if row["minutes"] == minutes]
            rivals = dict.fromkeys(row["rival"] for row in at_time)
            best = [best_settings([row for row in at_time if row["rival"] == rival], distance) for rival in rivals]
            for group in sorted(best, key=lambda group: median(group, distance)):
                cells = [text([row[column] for row in group]) for column in columns]
                kept = f"{group[0]['rival']} | {group[0]['batch']} | {group[0]['steps']}"
                lines.append(f"| {minutes:g} | {kept} | {' | '.join(cells)} |")
        lines += ["", "Measured with:", ""]
        lines += [f"- `{record['command']}`: {where(record)}" for record in of_set]
        lines.append("")
    return lines


def where(record: dict[str, Any]) -> str:
    machine = record["machine"]
    speed = speed_text(machine)
    return f"{machine_text(machine)}, {record['date']}{speed and f' ({speed})'}"


def with_mean_scale(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the mean of its sliced Wasserstein distances over the scales."""
    return {**row, MEAN_SCALE: statistics.mean(value for key, value in row.items() if key.startswith("swd_"))}


def best_settings(rows: list[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    """Return the rows of the batch size and the number of sampling steps with the lowest median over seeds."""
    tried = {(row["batch"], row["steps"]) for row in rows}
    groups = [[row for row in rows if (row["batch"], row["steps"]) == each] for each in tried]
    return min(groups, key=lambda group: median(group, column))


def median(rows: list[dict[str, Any]], column: str) -> float:
    return statistics.median(row[column] for row in rows)


def text(values: list[float]) -> str:
    """Return the median, with the range over seeds if there are several."""
    middle = f"{statistics.median(values):,.3g}" if max(values) < MIN_INTEGER else f"{statistics.median(values):,.0f}"
    return middle if min(values) == max(values) else f"{middle} ({min(values):,.3g}-{max(values):,.3g})"


if __name__ == "__main__":
    main()
