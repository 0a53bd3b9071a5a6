"""The folder of a run: which one, who holds it, and what is in it."""

from __future__ import annotations

import fcntl
import os
import re
import warnings
from pathlib import Path
from typing import IO

from detrx.errors import ConfigError
from detrx.train.config import USUAL_MODEL, TrainConfig

STATE = "last.safetensors"
BEST = "best.safetensors"
CONFIG = "config.yaml"
UNTAKEN = "untaken.txt"
"""The tensors of the weights that a run starts from which were not taken whole, and why."""
_LOCK = ".lock"


def choose_folder(config: TrainConfig) -> tuple[Path, Path | None]:
    """The run folder, and the training state to go on from (None: a fresh start).

    Raises:
        ConfigError: the folder already holds a run that was not to be resumed, or there is nothing to resume.
    """
    if config.resume not in ("", "auto"):
        state = _state_at(Path(config.resume))
        folder = Path(config.out) if config.out else state.parent
        if (folder / STATE).exists() and folder.resolve() != state.parent.resolve():
            raise _taken(folder, f"--resume {folder} to go on with that one")
        return folder, state
    folder = Path(config.out) if config.out else _default_folder(config)
    state = folder / STATE
    if not state.exists():
        return folder, None
    if config.resume == "auto":
        return folder, state
    raise _taken(folder, "add --resume auto to go on")


def _taken(folder: Path, remedy: str) -> ConfigError:
    return ConfigError(
        f"[train] {folder} must not hold a run yet, found {folder / STATE}; {remedy}, or choose another --out"
    )


def _state_at(path: Path) -> Path:
    state = path / STATE if path.is_dir() else path
    if not state.is_file():
        raise ConfigError(f"[train] resume must name a {STATE} or its folder, found nothing at {state}")
    return state


def _default_folder(config: TrainConfig) -> Path:
    """runs/<data>-<model>: the newest where a run is to be resumed, else the next free number."""
    model = config.model or Path(config.weights).stem or USUAL_MODEL
    words = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{Path(config.data).resolve().name or 'data'}-{model}")
    names = [Path("runs") / (words if n == 1 else f"{words}-{n}") for n in range(1, 10_000)]
    free = next(i for i, path in enumerate(names) if not path.exists())
    return names[free - 1] if config.resume == "auto" and free else names[free]


class RunFolder:
    """A run folder that this process alone writes to; the lock ends with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def __enter__(self) -> RunFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / _LOCK).open("a+")
        except OSError as error:
            raise ConfigError(
                f"[train] out must be a folder that can be written, {self.path}: {error.strerror}; "
                "choose another --out"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ConfigError(
                f"[train] {self.path} must be free, found another run writing to it; wait for it "
                "or choose another --out"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.close()

    def file(self, name: str) -> Path:
        """The path of a file in the folder, which is made again should someone have deleted it."""
        if not self.path.is_dir():
            warnings.warn(f"[train] the run folder {self.path} vanished and is made again", stacklevel=2)
            self.path.mkdir(parents=True, exist_ok=True)
        return self.path / name

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        path = self.file(name)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
