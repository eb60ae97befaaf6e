"""Which run of a folder another run was started from with `--from`."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

MAX_GENERATIONS = 64


def parent_facts(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return name and images seen of the model a run was started from, with the path of `--from`. None without one."""
    facts = provenance.get("parent")
    if not isinstance(facts, dict) or not isinstance(facts.get("model"), str):
        return None
    images_seen = facts.get("images_seen")
    is_count = isinstance(images_seen, int) and not isinstance(images_seen, bool) and images_seen >= 0
    return {
        "model": facts["model"],
        "images_seen": images_seen if is_count else 0,
        "path": _from_argument(provenance.get("command")) or facts["model"],
    }


def add_parents(summaries: Sequence[dict[str, Any]]) -> None:
    """Set `parent` (the id of the run that a run was started from, or None) and `inherited_images` of every summary.

    `inherited_images` counts the images that all runs before it have seen.
    """
    by_id = {summary["id"]: summary for summary in summaries}
    for summary in summaries:
        facts = summary["started_from"]
        summary["parent"] = find_parent(summary["id"], facts["path"], list(by_id)) if facts else None
    for summary in summaries:
        summary["inherited_images"] = _inherited_images(summary, by_id)


def find_parent(child: str, path: str, run_ids: Sequence[str]) -> str | None:
    """Return the run that holds the model at `path`, by its folder's name. None if no run has it, or several have it.

    Of several runs of this name, the one whose id is the end of the path counts, then the one next to the child.
    """
    parts = PurePath(path.partition("@sha256:")[0]).parts
    for end in range(len(parts), 0, -1):  # a checkpoint lies below the folder of its run
        named = [each for each in run_ids if each != child and PurePath(each).name == parts[end - 1]]
        if not named:
            continue
        if len(named) == 1:
            return named[0]
        by_path = [
            each
            for each in named
            if len(each.split("/")) > 1 and parts[:end][-each.count("/") - 1 :] == tuple(each.split("/"))
        ]
        siblings = [each for each in named if PurePath(each).parent == PurePath(child).parent]
        found = by_path or siblings
        return max(found, key=len) if found else None
    return None


def _from_argument(command: Any) -> str | None:
    words = [word for word in command if isinstance(word, str)] if isinstance(command, list) else []
    for index, word in enumerate(words):
        if word.startswith("--from="):
            return word.partition("=")[2]
        if word == "--from" and index + 1 < len(words):
            return words[index + 1]
    return None


def _inherited_images(summary: Mapping[str, Any], by_id: Mapping[str, Mapping[str, Any]]) -> int:
    total, current = 0, summary
    for _ in range(MAX_GENERATIONS):  # damaged files may name each other
        if not current["started_from"]:
            break
        total += current["started_from"]["images_seen"]
        if current["parent"] is None:
            break
        current = by_id[current["parent"]]
    return total
