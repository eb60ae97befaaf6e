"""Render `report.html`: samples, metrics, training curves, settings and the command to reproduce the run.

The page is one file that loads nothing. This module does not read runs.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a202c; background: #fff }
body { max-width: 1000px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem }
h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #e2e8f0; padding-bottom: .2rem }
table { border-collapse: collapse } th { font-weight: 600 }
td, th { text-align: left; padding: .15rem 1.2rem .15rem 0; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.small, figcaption { color: #4a5568; font-size: .85rem }
.row { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 }
img { image-rendering: pixelated; max-width: 100%; border: 1px solid #e2e8f0 }
svg { width: 100%; max-width: 640px; font: 11px system-ui, sans-serif; fill: #4a5568 }
svg .title { font-size: 13px; font-weight: 600; fill: #1a202c }
svg .grid { stroke: #e2e8f0 } pre { background: #f7fafc; padding: .6rem; overflow-x: auto }
.fault { border-left: 4px solid #c05621; padding-left: .8rem }
@media (prefers-color-scheme: dark) {
body { background: #1a202c; color: #e2e8f0 } h2 { border-color: #4a5568 } .small, figcaption { color: #a0aec0 }
svg { fill: #a0aec0 } svg .title { fill: #e2e8f0 } svg .grid { stroke: #4a5568 }
pre { background: #2d3748 } img { border-color: #4a5568 } }
"""


@dataclass(frozen=True)
class Figure:
    """A PNG and its caption."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class ReportMetric:
    """One row of the metric table, as text. `real_baseline` is the score of real images."""

    name: str
    value: str
    standard_error: str
    real_baseline: str
    note: str


@dataclass(frozen=True)
class ReportPage:
    """The content of a report, in page order."""

    title: str
    summary: Mapping[str, str]
    samples: Sequence[Figure]
    metrics: Sequence[ReportMetric] = ()
    protocol: str = ""
    neighbors: Figure | None = None
    charts: Sequence[str] = ()
    faults: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    command: str = ""


def render_page(page: ReportPage) -> str:
    """Return the whole page as HTML."""
    sections = [
        f"<h1>{escape(page.title)}</h1>",
        _table(page.summary),
        *(f'<p class="fault">{escape(fault)}</p>' for fault in page.faults),
        "<h2>Samples over time</h2><p class='small'>Left: generated from the same latents each time. "
        "Right: real images.</p>",
        f'<div class="row">{"".join(map(_figure, page.samples))}</div>',
        "<h2>Metrics</h2>" + _metrics_table(page),
        *(["<h2>Nearest training images</h2>" + _figure(page.neighbors)] if page.neighbors else []),
        "<h2>Training curves</h2>",
        f'<div class="row">{"".join(page.charts)}</div>' if page.charts else "<p>No measurements yet.</p>",
        f"<h2>Reproduce</h2><pre>{escape(page.command)}</pre>",
        "<h2>Settings</h2>" + _table(page.settings),
        "<h2>Environment</h2>" + _table(page.environment),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(page.title)}</title><style>{STYLE}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(sections)}</body></html>\n'


def _figure(figure: Figure) -> str:
    source, caption = b64encode(figure.png).decode(), escape(figure.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{source}"><figcaption>{caption}</figcaption></figure>'
    )


def _table(rows: Mapping[str, object]) -> str:
    cells = (f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table>{''.join(cells)}</table>"


def _metrics_table(page: ReportPage) -> str:
    if not page.metrics:
        return f"<p>{escape(page.protocol or 'Not evaluated yet: run cardigan report on this folder.')}</p>"
    rows = (
        f'<tr><th>{escape(row.name)}</th><td class="number">{escape(row.value)}</td>'
        f'<td class="number">{escape(row.standard_error)}</td>'
        f'<td class="number">{escape(row.real_baseline)}</td><td class="small">{escape(row.note)}</td></tr>'
        for row in page.metrics
    )
    head = "<tr><th>metric</th><th>value</th><th>standard error</th><th>real baseline</th><th></th></tr>"
    return f'<table>{head}{"".join(rows)}</table><p class="small">{escape(page.protocol)}</p>'
