"""The built-in datasets, by name."""

from collections.abc import Callable

from cardigan.config import STACKED_MNIST
from cardigan.data.mnist import load_mnist
from cardigan.data.source import ImageSource
from cardigan.data.stacked import load_stacked_mnist

BUILTIN_DATASETS: dict[str, Callable[..., ImageSource]] = {"mnist": load_mnist, STACKED_MNIST: load_stacked_mnist}
