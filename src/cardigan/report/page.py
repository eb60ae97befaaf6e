"""Render `report.html`: how the run ended, its health, samples, metrics, curves, commands and settings.

The page is one file that loads nothing. This module does not read runs.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from cardigan.report.style import style_sheet


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
    subtitle: str = ""
    state: str = ""
    """Whether the run is finished, and why it stopped, as a sentence."""
    health: str = ""
    health_level: str = ""
    """Style of the health: nothing, warning, fatal, or "" if it is too early to say."""
    readings: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
    samples: Sequence[Figure] = ()
    """Generated images, the newest first."""
    real: Figure | None = None
    metrics: Sequence[ReportMetric] = ()
    protocol: str = ""
    neighbors: Figure | None = None
    charts: Sequence[str] = ()
    command: str = ""
    resume: str = ""
    """The command that continues the run. Empty while it trains."""
    settings: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)


def render_page(page: ReportPage) -> str:
    """Return the whole page as HTML."""
    sections = [
        _result(page),
        _section("Newest samples", _samples(page)) if page.samples else "",
        _section("Evaluation", _metrics_table(page)),
        _section("Nearest training images", _figure(page.neighbors)) if page.neighbors else "",
        _section("Training curves", _charts(page.charts)),
        _section("Reproduce", _commands(page)),
        _section(
            "Settings and environment", _folded("Settings", page.settings) + _folded("Environment", page.environment)
        ),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(page.title)}</title>'
        f"<style>{style_sheet()}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body><main>{"".join(sections)}</main></body></html>\n'


def _result(page: ReportPage) -> str:
    """Return the top of the page: how the run ended, its health, the numbers that matter most."""
    readings = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.readings.items())
    return (
        f'<header><p class="eyebrow">{escape(page.subtitle)}</p><h1>{escape(page.title)}</h1>'
        f'<p class="result">{escape(page.state)}<br>'
        f'Health: <span class="{page.health_level}">{escape(page.health)}</span></p>'
        f'{"".join(f"""<p class="fault">{escape(fault)}</p>""" for fault in page.faults)}'
        f'<dl class="readings">{"".join(readings)}</dl></header>'
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _samples(page: ReportPage) -> str:
    newest, *earlier = page.samples
    pair = _figure(newest, "Generated", "fake") + (_figure(page.real, "Real", "real") if page.real else "")
    row = f'<div class="row">{"".join(map(_figure, earlier))}</div>'
    note = '<p class="small earlier">Earlier, from the same latents:</p>'
    return f'<div class="pair">{pair}</div>{note + row if earlier else ""}'


def _charts(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>' if charts else "<p>There are no measurements yet.</p>"


def _commands(page: ReportPage) -> str:
    resume = f'<p class="small">Continue the run:</p><pre>{escape(page.resume)}</pre>' if page.resume else ""
    return f'<p class="small">Train it again:</p><pre>{escape(page.command)}</pre>{resume}'


def _folded(title: str, rows: Mapping[str, object]) -> str:
    return f"<details><summary>{escape(title)}</summary>{_table(rows)}</details>" if rows else ""


def _figure(figure: Figure, title: str = "", kind: str = "") -> str:
    source, caption = b64encode(figure.png).decode(), escape(figure.caption)
    name = f"<b>{escape(title)}</b> " if title else ""
    return (
        f'<figure class="{kind}"><figcaption>{name}{caption}</figcaption>'
        f'<img alt="{escape(title)} {caption}" src="data:image/png;base64,{source}"></figure>'
    )


def _table(rows: Mapping[str, object]) -> str:
    cells = (f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return f'<div class="scroll"><table><tbody>{"".join(cells)}</tbody></table></div>'


def _metrics_table(page: ReportPage) -> str:
    if not page.metrics:
        return f"<p>{escape(page.protocol or 'Not evaluated yet: run cardigan report on this folder.')}</p>"
    rows = (
        f'<tr><th>{escape(row.name)}</th><td class="number">{escape(row.value)}</td>'
        f'<td class="number">{escape(row.standard_error)}</td>'
        f'<td class="number">{escape(row.real_baseline)}</td><td class="small">{escape(row.note)}</td></tr>'
        for row in page.metrics
    )
    head = (
        '<tr><th>metric</th><th class="number">value</th><th class="number">standard error</th>'
        '<th class="number">real images</th><th></th></tr>'
    )
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll">{table}</div><p class="small">{escape(page.protocol)}</p>'
