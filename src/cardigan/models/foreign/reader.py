"""Read a generator that another program saved. The content decides the format, not the file name."""

from collections.abc import Callable
from pathlib import Path

import torch

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.models.foreign.dcgan import MXNET, PYTORCH, ForeignGenerator, convert_generator
from cardigan.models.foreign.mxnet_params import MXNET_MAGIC, read_mxnet_tensors
from cardigan.models.foreign.tensor_storage import UnsupportedFile
from cardigan.models.foreign.torch_state_dict import LEGACY_MAGIC, ZIP_MAGIC, read_torch_tensors

MAX_FILE_BYTES = 2**30
"""A generator with width 2,000 is smaller."""
READERS: tuple[tuple[bytes, Callable[[bytes], dict[str, torch.Tensor]], ForeignGenerator], ...] = (
    (ZIP_MAGIC, read_torch_tensors, PYTORCH),
    (LEGACY_MAGIC, read_torch_tensors, PYTORCH),
    (MXNET_MAGIC, read_mxnet_tensors, MXNET),
)
"""Magic bytes, tensor reader and program of each supported format."""


def read_foreign_generator(path: Path) -> tuple[Config, dict[str, torch.Tensor]] | None:
    """Return the config and state dict of a generator that another program saved. None for any other kind of file.

    Supports netG_epoch_*.pth of PyTorch's DCGAN example and .params of the MXNet tutorial. Raises CardiganError for a
    file that is damaged, holds another network, or names code to run. Code in a file is never run.
    """
    match = next(
        ((read_tensors, foreign) for magic, read_tensors, foreign in READERS if _magic_bytes(path).startswith(magic)),
        None,
    )
    if match is None:
        return None
    reader, program = match
    try:
        return convert_generator(reader(_file_content(path)), program)
    except UnsupportedFile as error:
        raise CardiganError(f"{path} {error}.") from None


def _magic_bytes(path: Path) -> bytes:
    """Return the first bytes, or nothing if the file cannot be read; the next reader reports the error."""
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


def _file_content(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UnsupportedFile(f"has more than {MAX_FILE_BYTES:,} bytes, too many for such a generator")
    return path.read_bytes()
