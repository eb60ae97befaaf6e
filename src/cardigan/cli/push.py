"""`cardigan push MODEL user/name`: upload a model to the Hugging Face hub, or its page as a static Space."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cardigan.cli.parsing import parse
from cardigan.errors import CardiganError

if TYPE_CHECKING:
    from cardigan.inference.model import Model
    from cardigan.models.hub import HubAddress


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """Upload a model to the Hugging Face hub: weights, config and card. With --space: a page that shows it.

    Log in once with `hf auth login`, or set HF_TOKEN.
    """

    model: Annotated[Path, tyro.conf.Positional]
    """A run directory, a checkpoint folder, a generator.safetensors, or a model on the hub, hf:user/name."""
    name: Annotated[str, tyro.conf.Positional]
    """The repository: user/name, or user/name@branch. It is created if it does not exist, else it gets a new commit."""
    space: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Upload the page of `cardigan export --format html` as a static Space instead. It costs nothing to host, because
    it generates in the visitor's browser."""
    title: str = ""
    """With --space: the page's title."""
    direction_names: tuple[str, ...] = ()
    """With --space: names of the page's first principal directions."""
    private: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Make a new repository private. Default: the setting of your account."""
    message: str = ""
    """The commit message."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Upload nothing: show the files and the card."""


def main(argv: list[str]) -> int:
    """Upload the model or its Space; return the exit code."""
    options = parse(PushOptions, argv, "cardigan push")
    for flag, value in (("--title", options.title), ("--direction-names", options.direction_names)):
        if value and not options.space:
            raise CardiganError(f"{flag} has no effect without --space: add --space, or leave it out.")

    from cardigan.inference.model import load
    from cardigan.models.hub import parse_hub_address, repo_url

    hub_address = parse_hub_address(options.name)
    if options.space and hub_address.revision:
        raise CardiganError(
            f"A Space is shown from its main branch, but {options.name} names the branch {hub_address.revision}: "
            "leave it out."
        )
    model = load(options.model)
    url = repo_url(hub_address.repo_id, "space" if options.space else "model")
    if options.dry_run:
        branch = f", branch {hub_address.revision}" if hub_address.revision else ""
        print(f"Nothing was sent. Files for {url}{branch}:\n{_dry_run_text(model, options)}")
    elif options.space:
        print(f"Sent: {_push_space(model, hub_address, options)}")
        print(f"The page: {url}")
    else:
        print(f"Sent: {_push_model(model, hub_address, options)}")
        print(f"To sample from it: cardigan sample {hub_address}")
    return 0


def _push_model(model: "Model", hub_address: "HubAddress", options: PushOptions) -> str:
    from cardigan.inference.model import COMMIT_MESSAGE

    message = options.message or COMMIT_MESSAGE
    return model.push_to_hub(hub_address.repo_id, options.private or None, None, message, hub_address.revision)


def _push_space(model: "Model", hub_address: "HubAddress", options: PushOptions) -> str:
    from cardigan.inference.model import SPACE_MESSAGE

    return model.push_space_to_hub(
        hub_address.repo_id,
        options.title,
        options.direction_names,
        options.private or None,
        None,
        options.message or SPACE_MESSAGE,
        _model_name(options.model),
    )


def _model_name(model: Path) -> str:
    """Return the repository of a model that was read from the hub, or nothing."""
    from cardigan.models.hub import is_hub_address, parse_hub_address

    return parse_hub_address(model).repo_id if is_hub_address(model) else ""


def _dry_run_text(model: "Model", options: PushOptions) -> str:
    """Return the files with their sizes and hashes, and the card."""
    import tempfile

    from cardigan.exports.space import write_space
    from cardigan.files.sha256 import file_sha256
    from cardigan.models.hub import CARD_FILE

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "upload"
        if options.space:
            write_space(model, folder, options.title, options.direction_names, _model_name(options.model))
        else:
            model.save_pretrained(folder)
        rows = [
            f"  {path.name:<20} {path.stat().st_size:>14,} bytes   sha256 {file_sha256(path)}"
            for path in sorted(folder.iterdir())
        ]
        return "\n".join([*rows, "", (folder / CARD_FILE).read_text(encoding="utf-8")])
