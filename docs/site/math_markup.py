"""Formulas of the site: TeX in the pages' sources becomes MathML, which browsers show without a script."""

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
"""What the generator makes of $formula$ and $$formula$$."""


def with_formulas(page: str) -> str:
    """Return a page with MathML in place of TeX."""
    return FORMULA.sub(_mathml, page)


def _mathml(match: re.Match[str]) -> str:
    _, bracket, formula = match.groups()
    return convert(html.unescape(formula), display="inline" if bracket == "(" else "block")
