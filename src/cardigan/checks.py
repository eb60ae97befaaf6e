"""Validation of setting values. Knows no setting."""

import types
from typing import Any, Literal, get_args, get_origin

from cardigan.errors import CardiganError


def require(condition: bool, name: str, given: object, expected: str) -> None:
    if not condition:
        raise CardiganError(f"{name} is {given!r}: expected {expected}.")


def nearest_divisor(number: int, total: int, minimum: int = 1) -> int:
    """Return the divisor of `total` nearest to `number`, at least `minimum` if possible. Of two, return the smaller."""
    return min(
        (divisor for divisor in range(min(minimum, total), total + 1) if total % divisor == 0),
        key=lambda divisor: abs(divisor - number),
    )


def validate_type(value: Any, expected: Any, name: str) -> Any:
    """Return `value` if it has the annotated type. An integer is converted where a float is expected."""
    options = get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    for option in options:
        if get_origin(option) is Literal:
            if value in get_args(option):
                return value
            raise CardiganError(f"{name} is {value!r}: expected one of {', '.join(map(repr, get_args(option)))}.")
        if get_origin(option) is dict:
            if not isinstance(value, dict):
                raise CardiganError(f"{name} is {value!r}: expected a table of names and values.")
            return {key: validate_type(inner, get_args(option)[1], f"{name}.{key}") for key, inner in value.items()}
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            require(abs(value) < 2**1023, name, value, "a number that a float can hold")
            return float(value)
        if isinstance(value, option) and not (isinstance(value, bool) and option is not bool):
            return value
    type_names = " or ".join("nothing" if option is type(None) else option.__name__ for option in options)
    raise CardiganError(f"{name} is {value!r}: expected {type_names}.")
