"""What every border of the package checks, said in one way: expected, got, remedy.

Imports nothing outside the standard library: the command's help needs it before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def require_word(name: str, value: object, words: Iterable[object], remedy: str = "") -> None:
    """Raise ValueError if a value is not one of the accepted words.

    Args:
        name: The argument's name.
        value: The argument's value.
        words: All accepted words.
        remedy: A sentence that ends the message.
    """
    accepted = list(words)
    if value not in accepted:
        listed = ", ".join(map(repr, accepted))
        raise ValueError(f"{name} must be one of {listed}, got {value!r}. {remedy}".rstrip())


def require_type(name: str, value: object, kind: type | tuple[type, ...], remedy: str) -> None:
    """Raise TypeError if a value is of another type.

    Args:
        name: The argument's name.
        value: The argument's value.
        kind: The accepted type, or several.
        remedy: A sentence that ends the message.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(one.__name__ for one in kinds)
        got = type(value).__name__
        raise TypeError(f"{name} must be {_article(expected)}, got {_article(got)}. {remedy}")


def require_nonnegative(name: str, values: Tensor, remedy: str) -> None:
    """Raise ValueError if a number is negative, infinite or NaN.

    Args:
        name: The argument's name.
        values: The argument's value, of any shape.
        remedy: A sentence that ends the message.
    """
    wrong = ~(values.isfinite() & (values >= 0))
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        index = at[0] if len(at) == 1 else at
        raise ValueError(
            f"{name} must be at least 0 and finite, got {values[at].item()} at index {index}. "
            f"{remedy}"
        )


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"
