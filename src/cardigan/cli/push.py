"""`cardigan push MODEL user/name`: a model to the Hugging Face hub, or what would be sent."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.parsing import parse

if TYPE_CHECKING:
    from cardigan.inference.model import Model


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Send a model to the Hugging Face hub: its weights, what describes them, and its card. Log in once with `hf auth login`, or set HF_TOKEN."""

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model of the hub, hf:user/name."""
    name: Annotated[str, tyro.conf.Positional]
    """What it is to be called there: user/name, or user/name@branch; made if there is none, a new commit if there is."""
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Make a new one private, seen by you alone; without it, as your account is set."""
    message: str = "Share a generator trained with Cardigan"
    """What the commit says."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Send nothing: show the files, and the card as it would be."""


def main(argv: list[str]) -> int:
    """Send as the words say; return the exit code."""
    options = parse(PushOptions, argv, "cardigan push")

    from cardigan.inference.model import load
    from cardigan.models.hub import model_url, parse_hub_address

    hub_address = parse_hub_address(options.name)
    url = model_url(hub_address.repo_id)
    model = load(options.model)
    if options.dry_run:
        print(
            f"Nothing was sent. To {url}{f', branch {hub_address.revision}' if hub_address.revision else ''} would go:\n{_dry_run_text(model)}"
        )
        return 0
    print(
        f"Sent: {model.push_to_hub(hub_address.repo_id, options.private or None, None, options.message, hub_address.revision)}"
    )
    print(f"Whoever may see it can now do this: cardigan sample {hub_address}")
    return 0


def _dry_run_text(model: "Model") -> str:
    """Return the files with their sizes and the beginnings of their hashes, and the card."""
    import tempfile

    from cardigan.models.hub import CARD_FILE
    from cardigan.models.pretrained import file_sha256

    with tempfile.TemporaryDirectory() as temporary:
        folder = model.save_pretrained(Path(temporary) / "model")
        rows = [
            f"  {path.name:<20} {path.stat().st_size:>14,} bytes   sha256 {file_sha256(path)}"
            for path in sorted(folder.iterdir())
        ]
        return "\n".join([*rows, "", (folder / CARD_FILE).read_text()])
