"""Types are enforced in every test run: shapes in signatures are checked by beartype as functions are called."""

from jaxtyping import install_import_hook

install_import_hook("cardigan", "beartype.beartype")
