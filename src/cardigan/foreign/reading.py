"""From a file of another program's weights to our settings and tensors, by what the file is, whatever it is called.

Knows which reader reads what, and how a refusal is worded.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from cardigan.config import Config
from cardigan.errors import CardiganError
from cardigan.foreign.dcgan import MXNET, PYTORCH, Program, as_ours
from cardigan.foreign.described import Refused
from cardigan.foreign.mxnet_files import BEGIN, mxnet_tensors
from cardigan.foreign.torch_files import STREAM, ZIP, torch_tensors

LARGEST = 2**30
"""A generator 2,000 channels wide has less."""
KINDS: tuple[tuple[bytes, Callable[[bytes], dict[str, torch.Tensor]], Program], ...] = (
    (ZIP, torch_tensors, PYTORCH),
    (STREAM, torch_tensors, PYTORCH),
    (BEGIN, mxnet_tensors, MXNET),
)
"""How a file begins, what reads it, and whose generator it may hold."""


def foreign_generator(path: Path) -> tuple[Config, dict[str, torch.Tensor]] | None:
    """Return the settings and tensors, under our names, of a generator that another program saved; None for a file of any other kind.

    Takes a netG_epoch_*.pth of PyTorch's DCGAN example and a .params of the MXNet tutorial. Raises CardiganError for one that is damaged, holds
    another network, or names anything to be run: nothing in a file ever is.
    """
    kind = next(((reader, program) for begin, reader, program in KINDS if _begin(path).startswith(begin)), None)
    if kind is None:
        return None
    reader, program = kind
    try:
        return as_ours(reader(_content(path)), program)
    except Refused as error:
        raise CardiganError(f"{path} {error}.") from None


def _begin(path: Path) -> bytes:
    """Return the first bytes, nothing of what cannot be read: whoever reads it next says so."""
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


def _content(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise Refused(f"has more than {LARGEST:,} bytes, which no such generator has")
    return path.read_bytes()
