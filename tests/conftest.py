"""Enable type checks in all tests: beartype checks the array shapes in signatures at every call."""

from jaxtyping import install_import_hook

install_import_hook("cardigan", "beartype.beartype")
