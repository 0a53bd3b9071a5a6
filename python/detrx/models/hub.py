"""Published weights by name: fetched once, checked against the hash in their file name, resumed where it broke off.

Standard library alone, since the runtime half calls it. Three environment variables steer it:

- ``DETRX_OFFLINE=1``: nothing is fetched; what is in the cache is used.
- ``DETRX_MIRROR``: one or more URL prefixes, separated by blanks, tried before the publisher's own.
- ``DETRX_CACHE``: the folder for what was fetched, instead of ``~/.cache/detrx``.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Callable, Iterator, List, Optional, Tuple, Union

from detrx.errors import ConfigError, DownloadError

log = logging.getLogger(__name__)

SOURCE = "https://dl.fbaipublicfiles.com/detr/"
"""Where facebookresearch/detr keeps its weights (hubconf.py there); Apache-2.0."""
FILES = {
    "detr-r50": "detr-r50-e632da11.pth",
    "detr-r50-dc5": "detr-r50-dc5-f0fb7ef5.pth",
    "detr-r101": "detr-r101-2c7b67e5.pth",
    "detr-r101-dc5": "detr-r101-dc5-a2e86def.pth",
    "detr-r50-panoptic": "detr-r50-panoptic-00ce5173.pth",
    "detr-r50-dc5-panoptic": "detr-r50-dc5-panoptic-da08f1b1.pth",
    "detr-r101-panoptic": "detr-r101-panoptic-40021d53.pth",
}
"""The file of each name; it ends in the first eight digits of its SHA-256."""
MOST_BYTES = 4 * 2**30
"""A longer answer than this is no weights."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as dead."""
SLOWEST = 1024
"""Bytes a second over one TIMEOUT below which it counts as dead too."""
TRIES, WORTH = 4, 2**16
"""Connections in a row that may bring less than so many bytes before the next source is tried."""
_MOST_TRIES = 200
_CHUNK = 1 << 18
_PAUSE = 0.5

Progress = Callable[[int, Optional[int]], None]
"""Called with the bytes that are here and the bytes in all, where the server says."""


class _RestartError(Exception):
    """The server does not go on where the file broke off."""


class _RefusedError(Exception):
    """This source will not have the file, however often it is asked."""


def local(model: Union[str, Path], *, progress: Optional[bool] = None) -> Path:
    """The file of a published name, fetched where it is not here yet; any path as it is.

    Raises:
        DownloadError: it cannot be fetched, or may not be.
    """
    if str(model) not in FILES or Path(model).exists():
        return Path(model)
    return fetch(str(model), progress=progress)


def fetch(name: str, *, folder: Optional[Path] = None, progress: Optional[bool] = None) -> Path:
    """The weights of a published name, as a file whose hash was checked.

    What was fetched in part lies beside as ``.part`` and is gone on with, also after the process was killed. Processes
    that fetch the same file wait for each other.

    Args:
        name: one of FILES.
        folder: where to keep it; None takes ``cache_folder()``.
        progress: show a bar; None shows one where stderr is a terminal.

    Raises:
        ConfigError: no such name.
        DownloadError: no source has it, all answers are damaged, the disk is full, or DETRX_OFFLINE is set.
    """
    if name not in FILES:
        raise ConfigError(f"[hub] name must be one of {', '.join(FILES)}, got {name!r}")
    file = FILES[name]
    target = (folder or cache_folder()) / file
    if target.is_file():
        return target
    elsewhere = _torch_hub() / file
    if elsewhere.is_file() and _hash(elsewhere).startswith(wanted_hash(file)):
        return elsewhere
    if offline():
        raise DownloadError(
            f"[hub] {file} is not in {target.parent}, and DETRX_OFFLINE forbids to fetch it; "
            f"put it there from another machine: curl -O {SOURCE}{file}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return _fetch_once(target, sys.stderr.isatty() if progress is None else progress)
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(
            f"[hub] {target} cannot be written: {error.strerror or error}; make room, or set DETRX_CACHE to another "
            "folder. What is here already is kept"
        ) from error


def cache_folder() -> Path:
    """Where fetched weights are kept."""
    given = os.environ.get("DETRX_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    return Path(base) / "detrx"


def offline() -> bool:
    """Whether the environment forbids to fetch."""
    return os.environ.get("DETRX_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def sources(file: str) -> List[str]:
    """The URLs of a file in the order in which they are tried."""
    mirrors = re.split(r"[\s,]+", os.environ.get("DETRX_MIRROR", "").strip())
    prefixes = [prefix for prefix in mirrors if prefix]
    for prefix in prefixes:
        if not prefix.startswith(("http://", "https://")):
            raise ConfigError(f"[hub] DETRX_MIRROR must hold http or https URLs, got {prefix!r}")
    return [f"{prefix.rstrip('/')}/{file}" for prefix in [*prefixes, SOURCE]]


def wanted_hash(file: str) -> str:
    """The hash digits at the end of a file's name."""
    found = re.search(r"-([0-9a-f]{8,64})\.\w+$", file)
    if found is None:
        raise ConfigError(f"[hub] the name of {file} must end in the first digits of its SHA-256")
    return found[1]


def _torch_hub() -> Path:
    """Where torch.hub keeps what it fetched."""
    base = os.environ.get("TORCH_HOME") or os.path.join(  # noqa: PTH118
        os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache"),  # noqa: PTH111, PTH118
        "torch",
    )
    return Path(base) / "hub" / "checkpoints"


def _fetch_once(target: Path, show: bool) -> Path:
    """Fetch while no other process does."""
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_file():
            return target
        failures = []
        with _bar(target.name, show) as report:
            for url in sources(target.name):
                failure = _try_source(url, target, report)
                if failure is None:
                    return target
                log.warning("[hub] %s: %s", url, failure)
                failures.append(f"{url}: {failure}")
    raise DownloadError(
        f"[hub] {target.name} could not be fetched. " + "; ".join(failures) + ". Look at the network or set "
        f"DETRX_MIRROR; or put the file into {target.parent} yourself"
    )


def _try_source(url: str, target: Path, report: Progress) -> Optional[str]:
    """None where the target is whole now, else what went wrong."""
    part = target.with_name(f"{target.name}.part")
    resumed = part.is_file() and part.stat().st_size > 0
    for _ in range(2 if resumed else 1):
        try:
            _fill(url, part, report)
        except (_RefusedError, urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if isinstance(error, OSError) and error.errno in _FATAL:
                raise
            return str(error) or type(error).__name__
        found = _hash(part)
        if found.startswith(wanted_hash(target.name)):
            _settle(part, target)
            return None
        part.unlink()  # it may be an older piece that was damaged: once more from the start
    return f"its SHA-256 must begin with {wanted_hash(target.name)}, found {found[:8]}"


_FATAL = (28, 122, 30, 13)
"""ENOSPC, EDQUOT, EROFS, EACCES: no other source would help."""


def _settle(part: Path, target: Path) -> None:
    handle = os.open(part, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    part.replace(target)


def _fill(url: str, part: Path, report: Progress) -> None:
    """Read until the file is whole, over as many connections as it takes while each brings something."""
    idle, total = 0, None  # type: int, Optional[int]
    for _ in range(_MOST_TRIES):
        before = part.stat().st_size if part.is_file() else 0
        error: Optional[Exception] = None
        try:
            total = _connect(url, part, before, report)
        except _RestartError:
            part.unlink()
            continue
        except urllib.error.HTTPError as answer:
            answer.close()
            if answer.code not in (408, 425, 429) and answer.code < 500:
                raise _RefusedError(f"the server answers {answer.code} {answer.reason}") from answer
            error = answer
        except (urllib.error.URLError, http.client.HTTPException, OSError) as broken:
            if isinstance(broken, OSError) and broken.errno in _FATAL:
                raise
            error = broken
        here = part.stat().st_size if part.is_file() else 0
        if error is None and (total is None or here == total):
            return
        idle = idle + 1 if here - before < WORTH else 0
        if idle >= TRIES:
            raise _RefusedError(str(error) if error else f"{here} of {total} bytes came, and no more")
        time.sleep(_PAUSE * 2**idle)
    raise _RefusedError(f"it broke off {_MOST_TRIES} times")


def _connect(url: str, part: Path, here: int, report: Progress) -> Optional[int]:
    """One connection: append what it brings; returns the bytes in all, where the server says."""
    request = urllib.request.Request(url, headers={"User-Agent": "detrx", "Accept-Encoding": "identity"})
    if here:
        request.add_header("Range", f"bytes={here}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and here:  # longer than the file is, or changed
            error.close()
            raise _RestartError from error
        raise
    with answer:
        start, total = _extent(answer, here)
        _check_room(part, total, start)
        with part.open("r+b" if start else "wb") as out:
            out.seek(start)
            _copy(answer, out, start, total, report)
    return total


def _extent(answer: http.client.HTTPResponse, here: int) -> Tuple[int, Optional[int]]:
    """Where the answer begins in the file, and the bytes of the whole file."""
    length = answer.headers.get("Content-Length", "")
    count = int(length) if length.isdigit() else None
    if answer.status != 206:
        return 0, count
    found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != here:
        raise _RestartError
    return here, int(found[2]) if found[2] != "*" else (None if count is None else here + count)


def _check_room(part: Path, total: Optional[int], start: int) -> None:
    if total is not None and total > MOST_BYTES:
        raise _RefusedError(f"it announces {total} bytes, at most {MOST_BYTES} are taken")
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise OSError(28, f"{total - start} bytes are needed, {free} are free")


def _copy(
    answer: http.client.HTTPResponse, out: IO[bytes], here: int, total: Optional[int], report: Progress
) -> None:
    window, since = here, time.monotonic()
    while True:
        piece = answer.read1(_CHUNK)
        if not piece:
            return
        out.write(piece)
        here += len(piece)
        if here > MOST_BYTES:
            raise _RefusedError(f"more than {MOST_BYTES} bytes came")
        report(here, total)
        now = time.monotonic()
        if now - since > TIMEOUT:
            if here - window < SLOWEST * (now - since):
                raise OSError(f"only {here - window} bytes came in {now - since:.0f} s")
            window, since = here, now


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def _silent(here: int, total: Optional[int]) -> None:
    """Nobody looks."""


@contextmanager
def _bar(name: str, show: bool) -> Iterator[Progress]:
    """A bar with size, speed and time left on the terminal, or nothing."""
    if not show:
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)
        yield lambda here, total: bar.update(task, completed=here, total=total)
