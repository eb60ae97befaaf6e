"""The look of a report: the typeface and colors of the studio, embedded so that the page loads nothing."""

from base64 import b64encode
from functools import cache
from importlib.resources import files

FONT = "studio/static/plex.woff2"
"""IBM Plex Sans, in the package. Its license is next to it."""
STYLE = """
:root { color-scheme: light; --ground: #f2f3f3; --surface: #fbfbfb; --plate: #e4e6e6; --ink: #14181a; --muted: #566066;
--rule: #d6dadb; --real: #0b7265; --fake: #93307f; --third: #68727a; --warning: #8a5200; --fatal: #b3241d }
@media (prefers-color-scheme: dark) {
:root { color-scheme: dark; --ground: #111415; --surface: #191d1f; --plate: #0a0c0d; --ink: #e8ebeb; --muted: #9aa4a8;
--rule: #2b3134; --real: #57c5b3; --fake: #e08bd0; --third: #8b979c; --warning: #e5ae4f; --fatal: #ff8d83 } }
*, ::before, ::after { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--ground); color: var(--ink); font: 14px/1.5 Plex, system-ui, sans-serif;
font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
main { max-width: 1200px; margin: 0 auto; padding: 24px 24px 64px }
h1 { font-size: 22px; line-height: 28px; margin: 0 } h2 { font-size: 17px; line-height: 24px; margin: 0 0 12px }
h1, h2, th, b, summary { font-weight: 600 } p, dl, dd, figure { margin: 0 }
section { padding-top: 24px; margin-top: 24px; border-top: 1px solid var(--rule) }
.eyebrow, figcaption, .small, dt { color: var(--muted); font-size: 13px }
.result { font-size: 17px; line-height: 24px; margin: 12px 0; max-width: 72ch }
.nothing { color: var(--real) } .warning { color: var(--warning) } .fatal { color: var(--fatal) }
.readings { display: flex; flex-wrap: wrap; gap: 8px 32px; border-top: 1px solid var(--rule); padding-top: 8px }
.readings dd { font-size: 16px; font-weight: 500; line-height: 24px }
.fault { border-left: 3px solid var(--warning); padding-left: 12px; margin: 12px 0; max-width: 72ch }
.pair, .row { display: grid; gap: 16px } .pair { grid-template-columns: repeat(2, minmax(0, 540px)) }
.row { grid-template-columns: repeat(auto-fill, minmax(min(160px, 100%), 1fr)) }
.charts { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(420px, 100%), 1fr)) }
figure img { display: block; width: 100%; padding: 8px; background: var(--plate); image-rendering: pixelated }
.fake b { color: var(--fake) } .real b { color: var(--real) } .earlier { margin-top: 24px }
svg { display: block; width: 100%; background: var(--surface); border: 1px solid var(--rule); font-size: 12px;
fill: var(--muted); color: var(--ink) }
svg .title { font-size: 14px; font-weight: 600; fill: var(--ink) } svg .grid { stroke: var(--rule) }
polyline.s0 { stroke: var(--real) } polyline.s1 { stroke: var(--fake) } polyline.s2 { stroke: var(--third) }
text.s0 { fill: var(--real) } text.s1 { fill: var(--fake) } text.s2 { fill: var(--third) }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: 13px }
td, th { text-align: left; vertical-align: top; padding: 4px 24px 4px 0; border-bottom: 1px solid var(--rule) }
tbody th { font-weight: 400; color: var(--muted) } .number { text-align: right; white-space: nowrap }
pre { margin: 4px 0 16px; padding: 12px 16px; background: var(--surface); border: 1px solid var(--rule);
white-space: pre-wrap; font: 12.5px/1.6 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace }
details { border-bottom: 1px solid var(--rule) } summary { cursor: pointer; padding: 8px 0 }
details table { margin-bottom: 12px } details th { min-width: 140px }
@media (max-width: 640px) {
main { padding: 16px 16px 48px } svg { font-size: 16px } svg .title { font-size: 17px }
.pair { grid-template-columns: minmax(0, 1fr) } .row { grid-template-columns: repeat(2, minmax(0, 1fr)) }
td, th { padding-right: 12px } }
@media print { body { background: #fff } details:not([open]) { display: none } }
"""


@cache
def style_sheet() -> str:
    """Return the CSS of a report with its font. Without the font's file, the system's typeface is used."""
    font = files("cardigan").joinpath(FONT)
    if not font.is_file():
        return STYLE
    source = f"data:font/woff2;base64,{b64encode(font.read_bytes()).decode()}"
    return f'@font-face {{ font-family: Plex; font-weight: 100 700; src: url("{source}") format("woff2") }}{STYLE}'
