"""How many processes a run has on this machine, and the start and the end of those beside the first."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from detrx.errors import ConfigError, DeviceError
from detrx.train.config import TrainConfig
from detrx.train.defaults import settled
from detrx.train.distributed import ALONE, GATHERING, LOST, Team, arrival, joined

MEMORY = 2 << 30
"""Bytes that a process of its own is taken to need: training rt-n at batch 4 on 320 x 320 takes 1.7 GB."""
FEWEST_PICTURES = 2
"""Of a step, in each process; one alone makes poor statistics for batch norms, and poor use of a core."""
MOST = 8
"""Processes on the CPUs of one machine, unless told otherwise."""
GRACE = 20.0
"""Seconds that a process has to end after another one died."""
MOST_WORDS = 2000
"""Of what a process said before it died, the last so many bytes are shown."""


def count_processes(config: TrainConfig, device: torch.device, *, extra: Any = None) -> int:
    """How many processes a run begins with on this machine.

    "auto" is one for each GPU; on a CPU, whose threads wait for one another for a third of the time, one for each core
    as long as each has two pictures and memory, and one in all where ``threads`` says how to use the cores.

    Args:
        extra: what the other processes must be given besides; "auto" is 1 where it cannot be sent.

    Raises:
        ConfigError: more processes than pictures to a step.
        DeviceError: more processes than GPUs.
    """
    batch, asked = settled("batch", config.batch), config.processes
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if asked == "auto":
        if packed(extra) is None:
            return 1
        if gpus:
            return 1 if device.index is not None else max(1, min(gpus, batch // config.accumulate))
        if config.threads:
            return 1
        room = min(cores(), MOST, batch // max(FEWEST_PICTURES, config.accumulate), free_memory() // MEMORY)
        return max(1, room)
    if gpus and int(asked) > (gpus if device.index is None else 1):
        raise DeviceError(
            f"[train] processes must be at most one for each GPU, found {asked} and {gpus} GPUs as device "
            f"{config.device}; leave --processes out"
        )
    check_shares(config, int(asked))
    return int(asked)


def check_shares(config: TrainConfig, size: int) -> None:
    """Raise ConfigError unless each of ``size`` processes has a picture for each part of a batch."""
    batch = settled("batch", config.batch)
    if batch // size < config.accumulate:
        raise ConfigError(
            f"[train] batch must be at least processes x accumulate, found {batch} pictures for {size} processes x "
            f"{config.accumulate} parts; choose a larger --batch or fewer --processes"
        )


def cores() -> int:
    """Cores that this process may use, threads of one core counted once."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len({_siblings(number) for number in usable})


def _siblings(number: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
    return path.read_text(encoding="ascii").strip() if path.is_file() else str(number)


def free_memory() -> int:
    """Bytes that can be had without swapping; a great many where the system does not say."""
    known = Path("/proc/meminfo")
    lines = known.read_text(encoding="ascii").splitlines() if known.is_file() else []
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return kilobytes[0] << 10 if kilobytes else 1 << 50


# --- the first process starts the others


@contextmanager
def team_of(config: TrainConfig, device: torch.device, *, extra: Any = None) -> Iterator[Team]:
    """The processes of a run that was started as one: this one, the first, and as many more as ``config`` says.

    Args:
        extra: what the others need besides what the first tells them; ``packed`` must be able to pack it.

    Raises:
        ConfigError: ``extra`` cannot be sent.
        DeviceError: another process ended or did not come.
    """
    size = int(config.processes)
    if size == 1:
        yield ALONE
        return
    before = torch.get_num_threads()
    store = TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False, timeout=GATHERING)
    with _Others(config, size, port=store.port, extra=extra) as others:
        try:
            torch.set_num_threads(threads_each(config, size))
            others.gather(store)
            with joined(0, size, device=device, store=store) as team:
                yield team
        except DeviceError as error:
            raise others.told(error) from error
        finally:
            torch.set_num_threads(before)


def threads_each(config: TrainConfig, size: int) -> int:
    """CPU threads of torch for each of ``size`` processes on this machine."""
    return config.threads or max(1, cores() // size)


def packed(extra: Any) -> bytes | None:
    """``extra`` as bytes for another process, or None: it has no name, or is of the program's own main file."""
    try:
        found = pickle.dumps(extra)
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return None if b"__main__" in found else found


class _Others:
    """The processes beside the first one; however this one ends, they end too."""

    def __init__(self, config: TrainConfig, size: int, *, port: int, extra: Any) -> None:
        payload = packed((config.device, extra))
        if payload is None:
            raise ConfigError(
                "[train] extra_transform must be of a class in a module of its own for more than one process, found "
                f"{extra!r}; move it out of the main file, or choose processes 1"
            )
        self._ending = threading.Event()
        self._files = ExitStack()
        self._said: dict[int, IO[bytes]] = {}
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        for rank in range(1, size):
            self._said[rank] = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
            environment = {
                **os.environ,
                **{name: str(value) for name, value in places.items()},
                "MASTER_ADDR": "127.0.0.1",
                "OMP_NUM_THREADS": str(threads_each(config, size)),
            }
            self._running[rank] = _start(payload, environment, self._said[rank])
        threading.Thread(target=self._watch, name="detrx-watch", daemon=True).start()

    def __enter__(self) -> _Others:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        _wait(self._running.values(), seconds=GRACE if error is None else 1.0)
        for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
            for child in self._running.values():
                if child.poll() is None:
                    end(child)
            _wait(self._running.values(), seconds=2.0)
        self._files.close()

    def gather(self, store: Store) -> None:
        """Wait until all are there.

        Raises:
            DeviceError: one of them ended, or they do not come.
        """
        deadline = time.monotonic() + GATHERING.total_seconds()
        while not store.check([arrival(rank) for rank in self._running]):
            if (found := self._report()) is not None:
                raise found
            if time.monotonic() > deadline:
                raise DeviceError(
                    f"[train] {len(self._running)} more processes must come within {GATHERING}, not all did; choose "
                    "fewer --processes"
                )
            time.sleep(0.05)

    def told(self, error: DeviceError) -> DeviceError:
        """What ended the first of the others that failed, or the error itself where none did."""
        _wait(self._running.values(), seconds=1.0)
        return self._report() or error

    def _report(self) -> DeviceError | None:
        ended = {
            rank: code for rank, child in self._running.items() if (code := child.poll()) not in _AS_ASKED
        }
        if not ended:
            return None
        # Whoever lost another one is not the one to ask.
        rank = min(ended, key=lambda one: (LOST in self._words(one), one))
        return DeviceError(
            f"[train] process {rank} of {len(self._running) + 1} ended with {_code(ended[rank])}, and so does the run; "
            f"go on with --resume auto. It said: {self._words(rank) or 'nothing'}"
        )

    def _words(self, rank: int) -> str:
        file = self._said[rank]
        file.seek(0)
        return file.read()[-MOST_WORDS:].decode("utf-8", "replace").strip()

    def _watch(self) -> None:
        """End this process, too, where it waits in vain for one that died, as it may in a GPU's queue."""
        while not self._ending.wait(1.0):
            found = self._report()
            if found is not None and not self._ending.wait(GRACE):
                sys.stderr.write(f"{found}\n")
                os._exit(1)


_AS_ASKED = (None, 0, 128 + signal.SIGINT, 128 + signal.SIGTERM)
"""Exit codes of a process that runs, is done, or was asked to stop."""


def _start(payload: bytes, environment: dict[str, str], said: IO[bytes]) -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from detrx.train.worker import main; main({os.getpid()})"
    with tempfile.TemporaryFile() as given:
        given.write(payload)
        given.seek(0)
        return subprocess.Popen(
            [sys.executable, "-c", code], stdin=given, stdout=subprocess.DEVNULL, stderr=said, env=environment
        )


def _wait(children: Iterable[subprocess.Popen[bytes]], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(deadline - time.monotonic(), 0.0))


def _code(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
