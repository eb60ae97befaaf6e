"""`cardigan push MODEL user/name`: upload a model to the Hugging Face hub, or show what would be uploaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.parsing import parse

if TYPE_CHECKING:
    from cardigan.inference.model import Model


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Upload a model to the Hugging Face hub: weights, config and card.

    Log in once with `hf auth login`, or set HF_TOKEN.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model on the hub, hf:user/name."""
    name: Annotated[str, tyro.conf.Positional]
    """The repository: user/name, or user/name@branch. It is created if it does not exist, else it gets a new commit."""
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Make a new repository private. Default: the setting of your account."""
    message: str = "Share a generator trained with Cardigan"
    """The commit message."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Upload nothing: show the files and the card."""


def main(argv: list[str]) -> int:
    """Upload the model; return the exit code."""
    options = parse(PushOptions, argv, "cardigan push")

    from cardigan.inference.model import load
    from cardigan.models.hub import model_url, parse_hub_address

    hub_address = parse_hub_address(options.name)
    url = model_url(hub_address.repo_id)
    model = load(options.model)
    if options.dry_run:
        print(
            f"Nothing was sent. Files for {url}{f', branch {hub_address.revision}' if hub_address.revision else ''}:\n"
            f"{_dry_run_text(model)}"
        )
        return 0
    commit_url = model.push_to_hub(
        hub_address.repo_id, options.private or None, None, options.message, hub_address.revision
    )
    print(f"Sent: {commit_url}")
    print(f"To sample from it: cardigan sample {hub_address}")
    return 0


def _dry_run_text(model: "Model") -> str:
    """Return the files with their sizes and hashes, and the card."""
    import tempfile

    from cardigan.files.sha256 import file_sha256
    from cardigan.models.hub import CARD_FILE

    with tempfile.TemporaryDirectory() as temporary:
        folder = model.save_pretrained(Path(temporary) / "model")
        rows = [
            f"  {path.name:<20} {path.stat().st_size:>14,} bytes   sha256 {file_sha256(path)}"
            for path in sorted(folder.iterdir())
        ]
        return "\n".join([*rows, "", (folder / CARD_FILE).read_text()])
