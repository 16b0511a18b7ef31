"""What every border of the package checks, said in one way: expected, got, remedy."""

from __future__ import annotations

from collections.abc import Iterable


def require_word(name: str, value: object, words: Iterable[object], remedy: str = "") -> None:
    """Raise ValueError if an argument is none of the words it may be.

    Args:
        name: Of the argument.
        value: What was given.
        words: What may be given.
        remedy: A sentence for the error.
    """
    accepted = list(words)
    if value not in accepted:
        listed = ", ".join(map(repr, accepted))
        raise ValueError(f"{name} must be one of {listed}, got {value!r}. {remedy}".rstrip())


def require_type(name: str, value: object, kind: type | tuple[type, ...], remedy: str) -> None:
    """Raise TypeError if an argument is of another type.

    Args:
        name: Of the argument.
        value: What was given.
        kind: What it must be an instance of.
        remedy: A sentence for the error.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(one.__name__ for one in kinds)
        raise TypeError(f"{name} must be a {expected}, got a {type(value).__name__}. {remedy}")
