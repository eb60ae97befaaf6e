"""Names of sources: absolute paths, and the default name of a run."""

import os
import re
from pathlib import Path

from cardigan.data.builtin import BUILTIN_DATASETS
from cardigan.data.formats.detection import is_address
from cardigan.data.formats.labels import parse_labels_setting
from cardigan.data.webdataset.addresses import redact_query as without_query


def absolute_source(source: str) -> str:
    """Return the source with a local path made absolute."""
    if source in BUILTIN_DATASETS or "://" in source or is_address(source):
        return source
    return os.path.abspath(Path(source).expanduser())  # noqa: PTH100 - also for patterns


def absolute_labels(labels: str) -> str:
    """Return the setting `data.labels` with the path of a label file made absolute."""
    file, column = parse_labels_setting(labels)
    if file is None or not file.exists():
        return labels
    return str(file.absolute()) + (f":{column}" if column else "")


def default_run_name(source: str) -> str:
    """Return a short name for a source that is valid as a folder name."""
    return re.sub(r"[^\w.-]+", "-", Path(without_query(source).rstrip("/")).stem, flags=re.ASCII)[:40].strip("-.")
