"""How a source is called: absolute, and as the name of a run."""

import os
import re
from pathlib import Path

from cardigan.data.builtin import BUILTIN_DATASETS
from cardigan.data.formats.huggingface import HF_PREFIX
from cardigan.data.formats.labels import parse_labels_setting
from cardigan.data.webdataset.addresses import redact_query as without_query


def absolute_source(source: str) -> str:
    """Return a source by a name that means the same everywhere on this machine: local paths become absolute."""
    if source in BUILTIN_DATASETS or "://" in source or source.startswith(HF_PREFIX):
        return source
    return os.path.abspath(Path(source).expanduser())  # noqa: PTH100 - of a pattern too


def absolute_labels(labels: str) -> str:
    """Return where classes come from by a name that means the same everywhere on this machine."""
    file, column = parse_labels_setting(labels)
    if file is None or not file.exists():
        return labels
    return str(file.absolute()) + (f":{column}" if column else "")


def default_run_name(source: str) -> str:
    """Return a short name for a source, that a folder can bear."""
    return re.sub(r"[^\w.-]+", "-", Path(without_query(source).rstrip("/")).stem, flags=re.ASCII)[:40].strip("-.")
