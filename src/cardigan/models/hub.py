"""Models on the Hugging Face hub: `hf:user/name` becomes a folder on this machine, and files become a model there.

The one file that needs huggingface_hub. Fetches two files by their names and nothing else; what they hold is read elsewhere, as data.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardigan.errors import CardiganError

HUB_PREFIX = "hf:"
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
REPO_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
REVISION_PATTERN = re.compile(r"[\w./-]{1,255}", re.ASCII)


@dataclass(frozen=True)
class HubAddress:
    """A model on the hub, at a branch, a tag or a commit; without one at the newest state of its main branch."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{HUB_PREFIX}{self.repo_id}{f'@{self.revision}' if self.revision else ''}"


def is_hub_address(path: str | Path) -> bool:
    """Return whether this names a model on the hub, not a file."""
    return _text(path).startswith(HUB_PREFIX)


def parse_hub_address(path: str | Path) -> HubAddress:
    """Return what `hf:user/name` or `hf:user/name@revision` names; raises CardiganError for anything else."""
    name, separator, revision = _text(path).removeprefix(HUB_PREFIX).lstrip("/").partition("@")
    if separator and not REVISION_PATTERN.fullmatch(revision):
        raise CardiganError(
            f"{_text(path)!r} names no revision after the @: expected a branch, a tag or a commit, as in hf:user/name@main."
        )
    return HubAddress(check_repo_id(name), revision or None)


def _text(path: str | Path) -> str:
    return path.as_posix() if isinstance(path, Path) else path


def check_repo_id(repo_id: str) -> str:
    """Return a model's name on the hub as it is; raises CardiganError unless it is user/name."""
    if not REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise CardiganError(
            f"{repo_id!r} is no name of a model on the hub: expected user/name, of letters, digits, . - and _."
        )
    return repo_id


def download_model(
    address: HubAddress,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder with the model's two files, downloaded the first time and asked for again at most to learn whether they changed.

    Both are of one commit. Without a connection, what was fetched before is used. Raises CardiganError if that is nothing.
    """
    hub = _import_hub()
    options: dict[str, Any] = {
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "endpoint": _endpoint(),
    }
    with _translate_errors(str(address)):
        config = Path(hub.hf_hub_download(address.repo_id, CONFIG_FILE, revision=address.revision, **options))
        commit = (
            config.parent.name
        )  # the cache has a folder for each commit: a push in between must not give files of two
        weights = Path(hub.hf_hub_download(address.repo_id, WEIGHTS_FILE, revision=commit, **options))
    assert weights.parent == config.parent
    return config.parent


def upload_files(
    files: Mapping[str, Path],
    repo_id: str,
    message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
) -> str:
    """Send files by their names there as one commit, making the model if there is none, and return its address on the web.

    `private` counts when it is made. Raises CardiganError if the hub refuses or cannot be reached, and for a model that is public already where
    it was to be private; an empty model or branch may be there then, but never a part of the files.
    """
    hub = _import_hub()
    with _translate_errors(f"{HUB_PREFIX}{check_repo_id(repo_id)}"):
        api = hub.HfApi(endpoint=_endpoint(), token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise CardiganError(
                f"{HUB_PREFIX}{repo_id} is public already, so what is sent would be seen by all: make it private on its page, or rename it."
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        operations = [
            hub.CommitOperationAdd(path_in_repo=path_in_repo, path_or_fileobj=str(path))
            for path_in_repo, path in files.items()
        ]
        return str(api.create_commit(repo_id, operations, commit_message=message, revision=revision).commit_url)


def model_url(repo_id: str) -> str:
    """Return where a model of that name is shown."""
    return f"{_endpoint() or 'https://huggingface.co'}/{check_repo_id(repo_id)}"


def _endpoint() -> str | None:
    """Return the hub's address where it is another than the usual one; huggingface_hub itself reads this only when it is first imported."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise CardiganError("Models on the hub need huggingface_hub installed: pip install 'cardigan[hub]'.") from error
    return huggingface_hub


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one sentence."""
    from huggingface_hub import errors

    http_errors: list[type[Exception]] = [
        error_type
        for error_type in errors.HfHubHTTPError.__mro__
        if error_type.__module__.partition(".")[0] in {"httpx", "httpx2", "requests"}
    ]
    try:
        yield
    except errors.GatedRepoError as error:
        raise CardiganError(
            f"{address} asks for its owner's consent: ask for it on its page, then log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CardiganError(
            f"There is no model {address} that you may see: check its name, or log in (`hf auth login`) if it is private."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CardiganError(
            f"{address} has no such revision: give a branch, a tag or a commit of it, or leave the @ out."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise CardiganError(
            f"{address} cannot be reached and was not fetched before: connect to the internet, or give a folder."
        ) from error
    except errors.EntryNotFoundError as error:
        raise CardiganError(
            f"{address} holds no model of cardigan: expected the files {CONFIG_FILE} and {WEIGHTS_FILE}."
        ) from error
    except (ValueError, OSError, *http_errors) as error:
        raise CardiganError(
            f"{address}: {_first_line(error)}. Check the name, the connection, and `hf auth whoami` for the right to write."
        ) from error


def _first_line(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first.rstrip(".")[:300]
