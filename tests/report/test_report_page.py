"""Line charts show their data, and a report is one file that loads nothing."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import cardigan
from cardigan.figures.curves import Line, downsample_line, line_chart, short_number, spread_labels, tick_labels, ticks
from cardigan.figures.palette import SERIES_COLORS
from cardigan.report.page import Figure, ReportMetric, ReportPage, render_page
from cardigan.report.style import style_sheet


def svg_points(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in path.split()] for path in re.findall(r'points="([^"]+)"', svg)
    ]


def test_line_chart_follows_values():
    (points,) = svg_points(line_chart("t", [Line("a", [0.0, 1.0, 2.0], [5.0, 5.0, 9.0])]))
    assert points[0][1] == points[1][1] > points[2][1]  # y grows downward in an image
    assert points[0][0] < points[1][0] < points[2][0]


def test_line_chart_skips_non_finite_and_non_positive():
    assert (
        len(svg_points(line_chart("t", [Line("a", [0.0, 1.0, 2.0, 3.0], [1.0, float("nan"), float("inf"), 2.0])]))[0])
        == 2
    )
    assert len(svg_points(line_chart("t", [Line("a", [0.0, 1.0, 2.0], [1.0, 0.0, 10.0])], log_scale=True))[0]) == 2
    assert line_chart("t", [Line("a", [0.0], [float("nan")])]) == ""


def test_long_lines_are_downsampled_by_mean():
    line = downsample_line(
        Line("a", [float(number) for number in range(4000)], [float(number % 10) for number in range(4000)]), False
    )
    assert len(line.x) == 400
    assert set(line.y) == {4.5}


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.2, 17.0), (0.0, 299_000.0), (0.001, 0.0011), (5.0, 5.0)])
def test_ticks(low, high):
    values = ticks(low, high)
    assert len(values) <= 7 and all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    assert len(values) >= 3 or low == high


def test_labels_do_not_overlap():
    heights = sorted(spread_labels([100.0, 101.0, 102.0, 230.0, 231.0]))
    assert all(below - above >= 13.9 for above, below in zip(heights, heights[1:], strict=False))
    assert len(SERIES_COLORS) >= 5


def test_tick_labels_are_different_and_exact():
    assert tick_labels([740.0, 740.05, 740.1]) == ["740", "740.05", "740.1"]
    assert tick_labels([12_800.0, 12_805.0]) == ["12.8k", "12.805k"]
    svg = line_chart("narrow", [Line("a", [0.0, 64.0], [740.04, 740.11])])
    labels = re.findall(r'text-anchor="end">([^<]*)<', svg)
    assert len(labels) >= 3 and len(set(labels)) == len(labels)


def test_short_numbers():
    assert [short_number(value) for value in (0.0, 12_800.0, 1_500_000.0, 0.25, 3e-5)] == [
        "0",
        "12.8k",
        "1.5M",
        "0.25",
        "3e-05",
    ]


class ExternalLinks(HTMLParser):
    def __init__(self):
        super().__init__()
        self.sources, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "line", "polyline", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in {"line", "polyline"}:
            assert self.open.pop() == tag


def test_report_is_self_contained_and_escaped():
    chart = line_chart("losses", [Line("D", [0.0, 1.0], [1.0, 2.0])])
    page = ReportPage(
        title="run <one>",
        state="Finished.",
        health="No fault & more.",
        readings={"images": "64"},
        samples=[Figure(b"\x89PNG", "after 64 images")],
        metrics=[ReportMetric("distance", "13.2", "0.4", "1.5", "digits")],
        charts=[chart],
        faults=["collapse & more"],
        command='cardigan train "mnist" <x>',
    )
    html = render_page(page)
    parser = ExternalLinks()
    parser.feed(html)
    assert parser.open == []
    assert len(parser.sources) == 1 and parser.sources[0].startswith("data:image/png;base64,")
    assert "because &lt;so&gt;" in render_page(replace(page, metrics=[], protocol="because <so>"))
    assert "run &lt;one&gt;" in html and "collapse &amp; more" in html and "<x>" not in html
    assert "13.2" in html and "polyline" in html and "No fault &amp; more." in html
    html = html.partition("<body>")[2]
    assert html.index("Finished.") < html.index("collapse") < html.index("after") < html.index("polyline")


def test_report_has_the_font_of_the_studio():
    css = style_sheet()
    assert "data:font/woff2;base64," in css and "http" not in css
    studio_css = (Path(cardigan.__file__).parent / "studio/static/studio.css").read_text()
    for color in ("--ground", "--real", "--fake", "--warning", "--fatal"):
        value = re.search(rf"{color}: (#\w+)", css)[1]
        assert f"{color}: {value}" in studio_css
