"""An open file or a lock for each process that reads a source. Knows no file format."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

Resource = TypeVar("Resource")


class PerProcess(Generic[Resource]):
    """An open file or a lock per process: a forked process neither uses nor closes its parent's."""

    def __init__(self, open_resource: Callable[[], Resource]) -> None:
        self._open_resource = open_resource
        self._resources: dict[int, Resource] = {}

    def __call__(self) -> Resource:
        process = os.getpid()
        if process not in self._resources:
            self._resources[process] = self._open_resource()
        return self._resources[process]
