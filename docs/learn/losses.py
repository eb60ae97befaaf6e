"""Train the digits with each loss function, and draw the figure of losses.md.

    python docs/learn/losses.py [FOLDER]

Runs are kept in FOLDER (default: runs/losses). Finished ones are used again.
"""

import sys
from pathlib import Path

import cardigan
from cardigan.figures.curves import HEIGHT, WIDTH, Line, line_chart

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/losses")
FIGURE = Path(__file__).parent / "images" / "losses.svg"
LOSSES = ("non-saturating", "least-squares", "hinge", "relativistic", "wasserstein")
OFF_THE_SCALE = ("wasserstein",)
"""Its losses are differences of logits without a scale, here about -100."""
IMAGES = 16_000
SETTINGS = {
    "conditional": False,
    "generator.width": 12,
    "discriminator.width": 12,
    "device": "cpu",
    "checkpoint_every_images": 2_000,
    "sample_every_images": 8_000,
    "target_score": 0.01,  # never reached; with a target, every checkpoint is scored
}
CHARTS = {"discriminator_loss": "Loss of D", "generator_loss": "Loss of G", "score": "fd_digits, smaller is better"}
STYLE = """svg { font: 13px system-ui, sans-serif; background: #fff } text:not([class^="s"]) { fill: #333 }
.title { font-weight: 600 } .grid { stroke: #ddd }"""


def trained(loss: str) -> list[cardigan.Event]:
    """Return the events of a run with this loss, trained if it is not there."""
    out = FOLDER / loss
    if not out.exists():
        settings = {**SETTINGS, "objective.loss": loss}
        cardigan.train("mnist", recipe="mnist", out=out, images=IMAGES, overrides=settings)
    return cardigan.read_events(out / "journal.jsonl")


def line_of(loss: str, events: list[cardigan.Event], name: str) -> Line:
    points = [(event.images_seen, event.values[name]) for event in events if name in event.values]
    return Line(loss, [x for x, _ in points], [y for _, y in points])


def main() -> None:
    runs = {loss: trained(loss) for loss in LOSSES}
    charts = []
    for number, (name, title) in enumerate(CHARTS.items()):
        shown = [loss for loss in LOSSES if name == "score" or loss not in OFF_THE_SCALE]
        chart = line_chart(title, [line_of(loss, runs[loss], name) for loss in shown])
        place = f'<svg y="{number * (HEIGHT + 12)}" width="{WIDTH}" height="{HEIGHT}" '
        charts.append(chart.replace("<svg ", place, 1))
        for loss, events in runs.items():
            values = line_of(loss, events, name).y
            print(f"{title:28} {loss:16} first {values[0]:8.2f}  last {values[-1]:8.2f}")
    size = f'viewBox="0 0 {WIDTH} {len(charts) * (HEIGHT + 12)}"'
    page = f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>{"".join(charts)}</svg>\n'
    FIGURE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
