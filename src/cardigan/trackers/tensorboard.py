"""TensorBoard: event files in the run directory, in `tensorboard/`.

Writes the files with TensorBoard's own writer, so torch is not imported.
"""

# pyright: reportAttributeAccessIssue=false
# (TensorBoard makes its message types when it is imported, so pyright does not see them)

import shlex
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cardigan.trackers.interface import Message, Moment, SettingValue, TrackedRun, Tracker

FOLDER = "tensorboard"


def tensorboard_destination(run: Path) -> str:
    return FOLDER


def open_tensorboard(run: TrackedRun) -> Tracker:
    return TensorBoard(run)


class TensorBoard(Tracker):
    """Appends one event file to those of earlier sessions. TensorBoard shows them as one line."""

    def __init__(self, run: TrackedRun) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.run_id = run.name
        self.where = shlex.join(["tensorboard", "--logdir", str(run.path.parent)])
        self._writer = EventFileWriter(str(run.path / FOLDER))

    def send_settings(self, settings: Mapping[str, SettingValue]) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._write(0, 0.0, hparams_pb(dict(settings), trial_id=self.run_id, start_time_secs=0.0))

    def send_scalars(self, moment: Moment, scalars: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._write(moment.images_seen, moment.unix_seconds, Summary(value=values))

    def send_image(self, moment: Moment, name: str, path: Path, caption: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

        png = path.read_bytes()
        metadata = SummaryMetadata(
            summary_description=caption, plugin_data=SummaryMetadata.PluginData(plugin_name="images")
        )
        width, height = struct.unpack(">II", png[16:24])  # PNG, IHDR chunk
        self._write_strings(moment, name, metadata, [str(width).encode(), str(height).encode(), png])

    def send_message(self, moment: Moment, message: Message) -> None:
        from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        text = f"**{message.title}**: {message.text}" if message.text else f"**{message.title}**"
        self._write_strings(moment, message.kind, metadata, [text.encode()])

    def send_file(self, path: Path) -> None:
        """TensorBoard has no files. They lie in the run directory, next to its event files."""

    def rewind(self, moment: Moment) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # TensorBoard drops what it has read of this step and later ones.
        start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
        self._writer.add_event(Event(wall_time=moment.unix_seconds, step=moment.images_seen + 1, session_log=start))

    def flush(self) -> None:
        self._writer.flush()

    def close(self, state: str) -> None:
        self._writer.close()

    def _write_strings(self, moment: Moment, tag: str, metadata: Any, strings: list[bytes]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DataType

        tensor = TensorProto(
            dtype=DataType.Value("DT_STRING"),
            string_val=strings,
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(strings))]),
        )
        value = Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
        self._write(moment.images_seen, moment.unix_seconds, Summary(value=[value]))

    def _write(self, step: int, unix_seconds: float, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=unix_seconds, step=step, summary=summary))
