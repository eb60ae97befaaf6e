"""A static Space of the Hugging Face hub: the exported page, and the README.md that the hub reads.

The page generates in the visitor's browser, so hosting it costs nothing. Uploads nothing.
"""

from pathlib import Path

from cardigan.exports.card import license_name, plain_text
from cardigan.exports.export import HasSnapshot, export
from cardigan.exports.front_matter import space_front_matter
from cardigan.exports.webpage.page import data_title, default_title

PAGE_FILE, CARD_FILE = "index.html", "README.md"
DESCRIPTION = "A GAN that draws in your browser, without a server"


def write_space(
    model: HasSnapshot, folder: Path, title: str = "", direction_names: tuple[str, ...] = (), model_name: str = ""
) -> Path:
    """Write index.html and README.md into a new folder, and return the folder.

    `model_name` is the repository of the model on the hub, if it is there. Raises CardiganError if no page can be made.
    """
    folder.mkdir()
    page = export(model, "html", folder / PAGE_FILE, title=title, direction_names=direction_names)
    page.card.unlink()  # the page has it inside
    title = " ".join(title.split()) or default_title(data_title(model.snapshot))
    front_matter = space_front_matter(
        title, license_name(model.snapshot, model.path), DESCRIPTION, (model_name,) if model_name else ()
    )
    lines = [*front_matter, "", *_text(title, model_name), ""]
    (folder / CARD_FILE).write_text("\n".join(lines), encoding="utf-8")
    return folder


def _text(title: str, model_name: str) -> list[str]:
    source = f" The model is [{model_name}](https://huggingface.co/{model_name})." if model_name else ""
    return [
        f"# {plain_text(title)}",
        "",
        f"`{PAGE_FILE}` holds the generator and runs it in the visitor's browser. It loads and sends nothing.{source}",
        "Its model card is at the end of the page.",
    ]
