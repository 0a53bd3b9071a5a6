"""A process beside the first one of a run on this machine: started by it, told everything by it, and gone with it."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys

from detrx.errors import ConfigError, DetrxError
from detrx.train.course import follow
from detrx.train.distributed import joined, local_rank, world
from detrx.train.setup import choose_device

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main(parent: int) -> None:
    """Run to the end beside ``parent``, which reads what is said of a failure on standard error."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C before training begins is the first process's business
    _die_with(parent)
    try:
        name, extra = pickle.load(sys.stdin.buffer)
        given = world()
        if given is None:
            raise ConfigError(
                "[train] a worker must be started by detrx train, found no RANK; type: detrx train"
            )
        device = choose_device(name, local=local_rank())
        with joined(*given, device=device) as team:
            follow(team, device, extra_transform=extra)
    except DetrxError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before
            raise SystemExit(1)
