"""Front matter of README files on the Hugging Face hub: what a model card and a Space's page say in YAML.

The hub rejects a file with an unknown license or a malformed name. Knows nothing of snapshots.
"""

import re
from collections.abc import Sequence

LICENSE_IDS = frozenset(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "bigscience-openrail-m",
        "creativeml-openrail-m",
        "bigscience-bloom-rail-1.0",
        "bigcode-openrail-m",
        "afl-3.0",
        "artistic-2.0",
        "bsl-1.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "c-uda",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "wtfpl",
        "ecl-2.0",
        "epl-1.0",
        "epl-2.0",
        "etalab-2.0",
        "eupl-1.1",
        "agpl-3.0",
        "gfdl",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "isc",
        "lppl-1.3c",
        "ms-pl",
        "mpl-2.0",
        "odc-by",
        "odbl",
        "openmdw-1.0",
        "openrail++",
        "osl-3.0",
        "postgresql",
        "ofl-1.1",
        "ncsa",
        "unlicense",
        "zlib",
        "pddl",
        "lgpl-lr",
        "deepfloyd-if-license",
        "gemma",
        "unknown",
        "other",
    ]
)
"""License identifiers of the hub (https://huggingface.co/docs/hub/repositories-licenses)."""
DATASET_ID = re.compile(r"[\w-][\w.-]{0,95}(/[\w-][\w.-]{0,95})?", re.ASCII)
MAX_DESCRIPTION = 60
"""Longest `short_description` of a Space."""


def model_front_matter(license_text: str, tags: Sequence[str], dataset: str = "") -> list[str]:
    """Return the front matter of a model card. `license_text` is an identifier or a license's own name."""
    datasets = ["datasets:", f"- {yaml_quoted(dataset)}"] if DATASET_ID.fullmatch(dataset) else []
    return ["---", "library_name: cardigan", *license_lines(license_text),
            "pipeline_tag: unconditional-image-generation", "tags:", *(f"- {yaml_quoted(tag)}" for tag in tags),
            *datasets, "---"]  # fmt: skip


def space_front_matter(title: str, license_text: str, description: str, models: Sequence[str] = ()) -> list[str]:
    """Return the front matter of a static Space, whose page is index.html. `models` are models on the hub."""
    assert len(description) <= MAX_DESCRIPTION
    model_lines = ["models:", *(f"- {yaml_quoted(model)}" for model in models)] if models else []
    return ["---", f"title: {yaml_quoted(title)}", "emoji: 🧶", "colorFrom: indigo", "colorTo: pink", "sdk: static",
            "app_file: index.html", "pinned: false", *license_lines(license_text),
            f"short_description: {yaml_quoted(description)}", *model_lines, "---"]  # fmt: skip


def license_lines(license_text: str) -> list[str]:
    """Return the lines of a license. One that the hub does not list is `other`, with its own name if that is short."""
    identifier = license_text.lower()
    if identifier in LICENSE_IDS:
        return [f"license: {identifier}"]
    is_name = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,95}", license_text)
    return ["license: other", *([f"license_name: {yaml_quoted(identifier)}"] if is_name else [])]


def yaml_quoted(text: str) -> str:
    """Return one line of text as a YAML string."""
    return '"' + " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'
