"""What all sources have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, Iterator, Optional

from detrx.types import Frame

FALLBACK_FPS = 30.0
"""For files that state no rate or an impossible one."""


@dataclass(frozen=True)
class State:
    """How it stands with a source."""

    name: str
    """connecting, live, lost, frozen or ended."""
    since: float
    """When it became so, as time.time()."""
    why: str = ""
    """What happened, without passwords."""


OnState = Callable[[State], None]


class Source:
    """Frames from somewhere, in order. Iterate once; closing it frees the device."""

    name: str = ""
    """For people; never holds a password."""
    live: bool = False
    """Whether it goes on while the reader is busy, so that frames get lost."""
    fps: Optional[float] = None
    """Frames a second as far as known; None for pictures."""
    length: Optional[int] = None
    """Frames to come as far as known; a container's count may be wrong."""
    dropped: int = 0
    """Frames that were lost because the reader was busy."""
    skipped: int = 0
    """Pictures that could not be read."""
    corrupt: int = 0
    """Frames of a live source that arrived damaged."""
    reconnects: int = 0
    """Times that a lost source was opened anew."""
    state: State = State("live", 0.0)

    def now(self) -> Optional[float]:
        """The present on the clock of ``Frame.seconds``; None where frames do not age."""
        return None

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def close(self) -> None:
        """Free the device or file. Closing twice does nothing."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Up to the last @, because passwords hold everything: rather too much hidden than too little.
_PASSWORD = re.compile(r"(://[^:/?#@\s]*):\S*@")
_SECRET = re.compile(r"\b(pass(?:word|wd)?|pwd|token|key|secret|auth)=[^&\s]*", re.IGNORECASE)


def redact(uri: str) -> str:
    """The URI with its password, and what a query calls a secret, as three stars."""
    return _SECRET.sub(r"\1=***", _PASSWORD.sub(r"\1:***@", uri))


def sane_fps(found: float) -> float:
    """A container may say 0, NaN or its 90 kHz clock; all of that becomes the fallback."""
    return float(found) if 0.1 <= found <= 1000 else FALLBACK_FPS
