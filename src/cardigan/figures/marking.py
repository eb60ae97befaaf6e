"""Marks in image files: that a trained model generated them, which one, and from which seed.

The mark is XMP metadata with IPTC's digital source type `trainedAlgorithmicMedia`, which programs read that show the
origin of images. It does not change pixels, and anyone can remove it. Writes and reads no other metadata.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from cardigan.errors import CardiganError

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's name for media that a trained model has generated."""
NAMESPACE = "urn:cardigan:1.0"
IPTC, XMP_BASIC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "http://ns.adobe.com/xap/1.0/"
"""Namespaces: ours, and those of the two properties that others read."""
PNG_KEYWORD = "XML:com.adobe.xmp"
XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:cardigan="{namespace}"
 Iptc4xmpExt:DigitalSourceType="{source_type}" xmp:CreatorTool="{program}"
 cardigan:model="{model}" cardigan:samples="{samples}"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""


@dataclass(frozen=True)
class Mark:
    """What a file says about its image."""

    model: str
    """SHA-256 of the generator's fp32 weights, as the model's card has it."""
    samples: str
    """Which samples of the model these are, such as "seed 0, images 0 to 15"."""
    program: str = ""
    """Default: this program and its version."""

    def xmp(self) -> str:
        program = self.program or f"cardigan {version('cardigan')}"
        facts = {"program": program, "model": self.model, "samples": self.samples}
        quoted = {name: escape(value, quote=True) for name, value in facts.items()}
        return XMP.format(namespace=NAMESPACE, source_type=SOURCE_TYPE, **quoted)

    def png_info(self) -> PngInfo:
        info = PngInfo()
        info.add_itxt(PNG_KEYWORD, self.xmp())
        return info


def read_mark(path: Path) -> Mark | None:
    """Return the mark of a PNG, JPEG or WebP file, or None without one. Reads no pixels.

    Raises CardiganError for a file that is not an image.
    """
    try:
        with _any_size(), Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            content = image.info.get("xmp") or image.info.get(PNG_KEYWORD) or b""
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise CardiganError(f"{path} is not a PNG, JPEG or WebP image that can be read: {error}.") from error
    facts = _xmp_facts(content if isinstance(content, str) else bytes(content).decode(errors="replace"))
    if facts.get(f"{{{IPTC}}}DigitalSourceType") != SOURCE_TYPE:
        return None
    return Mark(
        facts.get(f"{{{NAMESPACE}}}model", ""),
        facts.get(f"{{{NAMESPACE}}}samples", ""),
        facts.get(f"{{{XMP_BASIC}}}CreatorTool", "unknown"),
    )


def _xmp_facts(packet: str) -> dict[str, str]:
    """Return properties of an XMP packet, written as attributes or as elements; none if it is damaged."""
    start, end = packet.find("<x:xmpmeta"), packet.rfind("</x:xmpmeta>")
    if start < 0 or end < 0 or "<!" in packet:  # entities could expand without end
        return {}
    try:
        root = ElementTree.fromstring(packet[start : end + len("</x:xmpmeta>")])
    except ElementTree.ParseError:
        return {}
    facts = {element.tag: (element.text or "").strip() for element in root.iter() if not len(element)}
    return facts | {name: value for element in root.iter() for name, value in element.attrib.items()}


@contextmanager
def _any_size() -> Iterator[None]:
    """Inside the block, Pillow opens images of any size: only their header is read."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
