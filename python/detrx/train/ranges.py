"""Checks of single settings; each failure names the key, what was found and what is allowed."""

from __future__ import annotations

import math
from typing import Any, Tuple

from detrx.errors import ConfigError

_WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Tuple[int, int]: "two whole numbers (height, width)",
    Tuple[int, ...]: "whole numbers",
    Tuple[str, ...]: "words",
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fits(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple):
        return any(value is None if one is None else _fits(value, one) for one in wanted)
    if wanted is int:
        return _is_whole(value)
    if wanted is float:
        return _is_whole(value) or isinstance(value, float)
    if wanted in (Tuple[int, int], Tuple[int, ...]):
        long_enough = isinstance(value, tuple) and (len(value) == 2 or wanted == Tuple[int, ...])
        return long_enough and all(_is_whole(one) for one in value)
    if wanted == Tuple[str, ...]:
        return isinstance(value, tuple) and all(isinstance(one, str) for one in value)
    return isinstance(value, wanted)


def check_type(name: str, value: Any, wanted: Any) -> None:
    """Refuse a value of another type than wanted (a type, or a tuple of types and None).

    Raises:
        ConfigError: names the key, the value and the type that it must have.
    """
    if _fits(value, wanted):
        return
    kind = wanted[0] if isinstance(wanted, tuple) else wanted
    words = _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
    raise ConfigError(f"[config] {name} must be {words}, found {value!r} ({type(value).__name__})")


def check_range(name: str, value: float, allowed: Tuple[float, float]) -> None:
    """Refuse a number outside [low, high], or none at all (NaN, infinity).

    Raises:
        ConfigError: names the key, the value and the range.
    """
    low, high = allowed
    if not (math.isfinite(value) and low <= value <= high):
        raise ConfigError(f"[config] {name} must be from {low:g} to {high:g}, found {value!r}")


def check_choice(name: str, value: str, allowed: Tuple[str, ...]) -> None:
    """Refuse a word that is not one of those allowed.

    Raises:
        ConfigError: names the key, the value and the choices.
    """
    if value not in allowed:
        raise ConfigError(f"[config] {name} must be one of {', '.join(allowed)}, found {value!r}")
