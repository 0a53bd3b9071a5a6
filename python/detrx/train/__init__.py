"""Training: settings, schedule, loop, state, run folder. Called, ``detrx.train(...)`` is ``detrx.train.run.train``."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detrx.train.run import RunResult


class _Train(ModuleType):
    """The package under the name of its function: importing it would else hide ``detrx.train``, which is promised."""

    def __call__(self, *args: Any, **keywords: Any) -> RunResult:
        from detrx.train.run import train

        return train(*args, **keywords)


sys.modules[__name__].__class__ = _Train
