"""An engine by ``trtexec``, the program that comes with every TensorRT, where there are no Python bindings."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from detrx.errors import EngineError
from detrx.export.engine_graph import Holds

if TYPE_CHECKING:
    from detrx.export.engine import EngineSettings

HOURS = 4 * 3600
"""A build that takes longer hangs."""


def command(
    program: Path,
    onnx: Path,
    engine: Path,
    settings: EngineSettings,
    holds: Holds,
    *,
    version: tuple[int, int],
) -> list[str]:
    """The command line for a TensorRT of that (major, minor) version."""
    line = [str(program), f"--onnx={onnx}", f"--saveEngine={engine}"]
    line += [f"--memPoolSize=workspace:{settings.workspace}", "--profilingVerbosity=detailed", "--noTF32"]
    line.append("--buildOnly" if version < (8, 6) else "--skipInference")
    if version[0] == 8:
        line += _flags_of_8(holds)
    elif version[0] < 11:  # 11 builds no other way
        line.append("--stronglyTyped")
    if settings.plugins is not None:
        line.append(f"--{'plugins' if version < (8, 6) else 'dynamicPlugins'}={settings.plugins}")
    if holds.batch is None:
        sides = "x".join(str(side) for side in holds.pixels)
        for name, many in zip(("min", "opt", "max"), settings.batch):
            line.append(f"--{name}Shapes=pixels:{many}x{sides}")
    if settings.timing_cache is not None:
        line.append(f"--timingCacheFile={settings.timing_cache}")
    return line


def _flags_of_8(holds: Holds) -> list[str]:
    flags = [name for name, there in (("--fp16", holds.fp16), ("--int8", holds.int8)) if there]
    if flags and holds.float32:
        pinned = ",".join(f"{name}:fp32" for name in holds.float32 if not re.search("[,:*]", name))
        flags += ["--precisionConstraints=obey", f"--layerPrecisions={pinned}"]
    return flags


def run_trtexec(program: Path, onnx: Path, engine: Path, settings: EngineSettings, holds: Holds) -> str:
    """Build, and answer with the version that did.

    Raises:
        EngineError: it is another TensorRT than was asked for, or it built nothing.
    """
    from detrx.export.engine import check_version, plugins_for

    version = version_of(program)
    check_version(version, settings.target)
    major, minor = (int(part) for part in version.split(".")[:2])
    settings = replace(settings, plugins=plugins_for(settings, holds, major))
    line = command(program, onnx, engine, settings, holds, version=(major, minor))
    run_line(line, makes=engine, failure="built nothing")
    return version


def run_line(line: list[str], *, makes: Path, failure: str, seconds: float = HOURS) -> str:
    """Run a trtexec, and answer with what it said.

    Args:
        makes: the file that it writes.
        failure: what it is said to have done where it fails.

    Raises:
        EngineError: it fails, does not end in time, or writes nothing.
    """
    try:
        done = subprocess.run(
            line, capture_output=True, text=True, errors="replace", check=False, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"[engine] {line[0]} did not end: {error}; type: {' '.join(line)}") from error
    said = done.stdout + done.stderr
    if done.returncode or not makes.is_file() or not makes.stat().st_size:
        errors = [row for row in said.splitlines() if re.search(r"\[E\]|rror|FAILED", row)]
        raise EngineError(
            f"[engine] {line[0]} {failure} (exit {done.returncode}): {' '.join(errors[-3:]) or 'no reason given'}; "
            f"to see all of it, type: {' '.join(line)[:2000]}"
        )
    return said


def version_of(program: Path) -> str:
    """What a trtexec calls itself, as "8.5.2".

    Raises:
        EngineError: it does not say.
    """
    try:
        done = subprocess.run(
            [str(program), "--help"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"[engine] {program} does not run: {error}; name another with --trtexec") from error
    found = re.search(
        r"TensorRT[^\]]*\[?v(\d{4,6})|TensorRT\D{0,20}(\d+\.\d+\.\d+)", done.stdout + done.stderr
    )
    if not found:
        raise EngineError(f"[engine] {program} does not say its version; name another with --trtexec")
    if found.group(2):
        return found.group(2)
    number = int(found.group(1))
    base = 10000 if number >= 100000 else 1000
    minor = number % base
    return f"{number // base}.{minor // 100}.{minor % 100}"
