"""Download models `hf:user/name` from the Hugging Face hub, and upload models.

The only module that needs huggingface_hub. It downloads two named files and does not read their content.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cardigan.errors import CardiganError, first_line

HUB_PREFIX = "hf:"
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
RepoType: TypeAlias = Literal["model", "space"]
"""Kind of repository. A space here is a static one: the hub shows its index.html."""
REPO_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)
REVISION_PATTERN = re.compile(r"[\w./-]{1,255}", re.ASCII)


@dataclass(frozen=True)
class HubAddress:
    """A model on the hub at a branch, tag or commit. Default revision: the main branch."""

    repo_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{HUB_PREFIX}{self.repo_id}{f'@{self.revision}' if self.revision else ''}"


def is_hub_address(path: str | Path) -> bool:
    """Return whether the path is a hub address, not a file."""
    return _text(path).startswith(HUB_PREFIX)


def parse_hub_address(path: str | Path) -> HubAddress:
    """Parse `hf:user/name` or `hf:user/name@revision`. Raises CardiganError for anything else."""
    name, separator, revision = _text(path).removeprefix(HUB_PREFIX).lstrip("/").partition("@")
    if separator and not REVISION_PATTERN.fullmatch(revision):
        raise CardiganError(
            f"{_text(path)!r} has no valid revision after the @: expected a branch, tag or commit, "
            "as in hf:user/name@main."
        )
    return HubAddress(check_repo_id(name), revision or None)


def _text(path: str | Path) -> str:
    return path.as_posix() if isinstance(path, Path) else path


def check_repo_id(repo_id: str) -> str:
    """Return the repo ID unchanged. Raises CardiganError unless it has the form user/name."""
    if not REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:
        raise CardiganError(
            f"{repo_id!r} is not a valid name of a model on the hub: "
            "expected user/name with letters, digits, . - and _."
        )
    return repo_id


def download_model(
    address: HubAddress,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder with the model's two files, downloading them if they are not cached or have changed.

    Both files are from one commit. Without a connection, cached files are used. Raises CardiganError if there are none.
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
        # The cache folder is named after the commit. Pinning it keeps both files consistent.
        commit = config.parent.name
        weights = Path(hub.hf_hub_download(address.repo_id, WEIGHTS_FILE, revision=commit, **options))
    assert weights.parent == config.parent
    return config.parent


def download_card(address: HubAddress) -> Path:
    """Return the model's card, downloaded if it is not cached. Raises CardiganError if there is none."""
    hub = _import_hub()
    with _translate_errors(str(address)):
        return Path(hub.hf_hub_download(address.repo_id, CARD_FILE, revision=address.revision, endpoint=_endpoint()))


def upload_files(
    files: Mapping[str, Path],
    repo_id: str,
    message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    repo_type: RepoType = "model",
) -> str:
    """Upload files as one commit and return its URL. `files` maps names in the repo to local paths.

    Creates the repo if needed; `private` applies only then. Raises CardiganError if the hub refuses or is unreachable,
    or if `private` is set and the repo is already public. An empty repo or branch may then remain, but never some of
    the files.
    """
    hub = _import_hub()
    address = f"{HUB_PREFIX}{check_repo_id(repo_id)}" if repo_type == "model" else f"The Space {check_repo_id(repo_id)}"
    with _translate_errors(address):
        api = hub.HfApi(endpoint=_endpoint(), token=token)
        space = {} if repo_type == "model" else {"space_sdk": "static"}
        api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type, **space)
        if private and not api.repo_info(repo_id, repo_type=repo_type).private:
            raise CardiganError(
                f"{address} is already public, so the upload would be public: "
                "make the repo private on its page, or choose another name."
            )
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True, repo_type=repo_type)
        operations = [
            hub.CommitOperationAdd(path_in_repo=path_in_repo, path_or_fileobj=str(path))
            for path_in_repo, path in files.items()
        ]
        commit = api.create_commit(repo_id, operations, commit_message=message, revision=revision, repo_type=repo_type)
        return str(commit.commit_url)


def repo_url(repo_id: str, repo_type: RepoType = "model") -> str:
    """Return the URL of the page of a model or a Space."""
    folder = "" if repo_type == "model" else f"{repo_type}s/"
    return f"{_endpoint() or 'https://huggingface.co'}/{folder}{check_repo_id(repo_id)}"


def _endpoint() -> str | None:
    """Return the custom hub URL, or None. huggingface_hub itself reads HF_ENDPOINT only on first import."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _import_hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise CardiganError("Models on the hub need huggingface_hub: pip install 'cardigan[hub]'.") from error
    return huggingface_hub


@contextmanager
def _translate_errors(address: str) -> Iterator[None]:
    """Convert exceptions of huggingface_hub to CardiganError."""
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
            f"{address} is gated: request access on its page, then log in with `hf auth login`."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CardiganError(
            f"The model {address} does not exist or is private: check its name, or log in with `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise CardiganError(f"{address} has no such revision: give a branch, tag or commit, or omit the @.") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise CardiganError(
            f"{address} cannot be reached and is not cached: connect to the internet, or give a folder."
        ) from error
    except errors.EntryNotFoundError as error:
        raise CardiganError(
            f"{address} is not a Cardigan model: expected the files {CONFIG_FILE} and {WEIGHTS_FILE}."
        ) from error
    except ValueError as error:  # the hub's reasons to reject a card are on lines of their own
        raise CardiganError(f"{address}: {' '.join(str(error).split())[:500]}.") from error
    except (OSError, *http_errors) as error:
        raise CardiganError(
            f"{address}: {first_line(error, 300)}. Check the name, the connection, and your write access "
            "(`hf auth whoami`)."
        ) from error
