"""Options that are more to a command than a field of its settings."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from detrx.errors import ConfigError


def take_option(args: Sequence[str], name: str) -> Tuple[List[str], Optional[str]]:
    """The arguments without an option of the form ``name VALUE`` or ``name=VALUE``, and its value.

    Raises:
        ConfigError: nothing follows the name.
    """
    rest: List[str] = []
    value: Optional[str] = None
    items = iter(args)
    for item in items:
        if item == name:
            value = next(items, None)
            if value is None:
                raise ConfigError(f"[command line] {name} must be followed by a value, found nothing")
        elif item.startswith(name + "="):
            value = item[len(name) + 1 :]
        else:
            rest.append(item)
    return rest, value


def source_first(args: Sequence[str]) -> List[str]:
    """``--source X`` means X without a name: what to look at is typed either way.

    Raises:
        ConfigError: nothing follows ``--source``.
    """
    rest, source = take_option(args, "--source")
    return rest if source is None else [source, *rest]
