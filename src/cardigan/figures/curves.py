"""Line charts as SVG, for reports."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from cardigan.figures.palette import SERIES_COLORS

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 112, 30, 34
"""Margins for labels in pixels. The line names are on the right."""
MAX_POINTS = 400
"""Maximum points per line. Longer lines are averaged in groups."""


MAX_DIGITS = 12


@dataclass(frozen=True)
class Line:
    """One named line: y over x, x ascending."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    title: str,
    lines: Sequence[Line],
    log_scale: bool = False,
    x_label: str = "images seen",
    marked: tuple[float, float] | None = None,
) -> str:
    """Return a chart of all lines. It shows finite values, and only positive ones on a log scale.

    `marked` is a point (x, y) of a line that gets a ring, such as the best one. Lines have the classes s0, s1, ... for
    style sheets.
    """
    drawn_lines = [downsample_line(line, log_scale) for line in lines]
    drawn_lines = [line for line in drawn_lines if line.x]
    if not drawn_lines:
        return ""
    x_low, x_high = min(min(line.x) for line in drawn_lines), max(max(line.x) for line in drawn_lines)
    values = [math.log10(y) if log_scale else y for line in drawn_lines for y in line.y]
    y_low, y_high = pad_range(min(values), max(values))

    def to_svg(x: float, y: float) -> tuple[float, float]:
        level = math.log10(y) if log_scale else y
        fraction = (x - x_low) / max(x_high - x_low, 1e-12)
        return LEFT + fraction * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - (level - y_low) / (y_high - y_low) * (
            HEIGHT - TOP - BOTTOM
        )

    parts = [f'<text x="{LEFT}" y="17" class="title">{escape(title)}</text>']
    y_ticks = [10**tick if log_scale else tick for tick in ticks(y_low, y_high)]
    for value, label in zip(y_ticks, tick_labels(y_ticks), strict=True):
        _, y_svg = to_svg(x_low, value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_svg:.1f}" y2="{y_svg:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y_svg + 4:.1f}" text-anchor="end">{label}</text>')
    x_ticks = ticks(x_low, x_high)
    for value, label in zip(x_ticks, tick_labels(x_ticks), strict=True):
        x_svg, _ = to_svg(value, 10**y_low if log_scale else y_low)
        parts.append(f'<text x="{x_svg:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    label_heights = spread_labels([to_svg(line.x[-1], line.y[-1])[1] for line in drawn_lines])
    for index, (line, color, label_height) in enumerate(zip(drawn_lines, SERIES_COLORS, label_heights, strict=False)):
        path = " ".join(
            f"{across:.1f},{down:.1f}" for across, down in (to_svg(x, y) for x, y in zip(line.x, line.y, strict=True))
        )
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6" class="s{index}"/>'
            f'<text x="{WIDTH - RIGHT + 6}" y="{label_height + 4:.1f}" fill="{color}" class="s{index}">'
            f"{escape(line.name)}</text>"
        )
    if marked is not None:
        across, down = to_svg(*marked)
        parts.append(
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="5" fill="none" stroke="currentColor" stroke-width="1.5"/>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def downsample_line(line: Line, log_scale: bool) -> Line:
    """Return the line with at most `MAX_POINTS` points, without invalid values."""
    pairs = [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(y) and (y > 0 or not log_scale)]
    group_size = max(1, math.ceil(len(pairs) / MAX_POINTS))
    groups = [pairs[start : start + group_size] for start in range(0, len(pairs), group_size)]
    mean_x, mean_y = ([sum(pair[axis] for pair in group) / len(group) for group in groups] for axis in (0, 1))
    return Line(line.name, mean_x, mean_y)


def pad_range(low: float, high: float) -> tuple[float, float]:
    room = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room


def ticks(low: float, high: float) -> list[float]:
    """Return three to six round numbers within the range."""
    step = 10.0 ** math.floor(math.log10((high - low) / 3)) if high > low else 1.0
    step = next((step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6), step)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def spread_labels(heights: list[float], gap: float = 14.0) -> list[float]:
    """Return the heights, in order, moved apart where labels would overlap."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    spread = list(heights)
    for above, below in zip(order, order[1:], strict=False):
        spread[below] = max(spread[below], spread[above] + gap)
    overrun = max(0.0, max(spread, default=0.0) - (HEIGHT - BOTTOM))
    return [height - overrun for height in spread]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return the numbers in short form, with as many digits as they need to be different and exact."""
    for digits in range(3, MAX_DIGITS):
        labels = [short_number(value, digits) for value in values]
        if len(set(labels)) == len(set(values)):
            return labels
    return [short_number(value, MAX_DIGITS) for value in values]


def short_number(value: float, digits: int = 3) -> str:
    """Return a number in short form with at most this many significant digits: 12k, 1.5M, 0.25, 3e-05."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.{digits - 3}e}"
