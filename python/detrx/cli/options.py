"""Options that are more to a command than a field of its settings."""

from __future__ import annotations

import re
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


PLACE = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]*):\d{1,5}")


def web_alone(args: Sequence[str], *, default: str) -> List[str]:
    """``--web`` may stand alone: what follows is its HOST:PORT only where it looks like one."""
    rest: List[str] = []
    for item, behind in zip(args, [*args[1:], ""]):
        rest.append(item)
        if item == "--web" and not PLACE.fullmatch(behind):
            rest.append(default)
    return rest
