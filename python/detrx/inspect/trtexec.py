"""An engine measured by ``trtexec``, which comes with every TensorRT, where no runtime of ours can open it."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import List, Tuple

from detrx.export.trtexec import run_line, version_of
from detrx.inspect.layers import EngineLayers, read_layers
from detrx.inspect.profile import Profile, read_profile
from detrx.runtime.sidecar import Sidecar, require_fit
from detrx.runtime.sidecar import version_of as numbers

MINUTES = 10
"""An engine that has not run so often after it hangs."""


def command(program: Path, engine: Path, sidecar: Sidecar, folder: Path, *, runs: int) -> List[str]:
    """The command line that writes layers.json and profile.json into a folder."""
    line = [str(program), f"--loadEngine={engine}", "--profilingVerbosity=detailed", "--separateProfileRun"]
    line += [f"--iterations={runs}", f"--exportLayerInfo={folder / 'layers.json'}"]
    line.append(f"--exportProfile={folder / 'profile.json'}")
    least, likely, most = sidecar.batch
    if least != most:
        line.append("--shapes=pixels:" + "x".join(map(str, (likely, 3, *sidecar.info.canvas))))
    return line


def measure(program: Path, engine: Path, sidecar: Sidecar, *, runs: int) -> Tuple[EngineLayers, Profile, str]:
    """The layers of an engine, their times, and the name of the GPU.

    Raises:
        EngineError: it is another TensorRT's engine, or the program does not run it.
    """
    require_fit(engine, sidecar, version=numbers(version_of(program)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        line = command(program, engine, sidecar, folder, runs=runs)
        plugins = (
            ", perhaps for want of --dynamicPlugins=LIBRARY (8.5: --plugins=)"
            if sidecar.plugin_sha256
            else ""
        )
        failure = f"does not run {engine}{plugins}"
        said = run_line(line, makes=folder / "profile.json", failure=failure, seconds=60 * MINUTES)
        layers, profile = read_layers(folder / "layers.json"), read_profile(folder / "profile.json")
    card = re.search(r"Selected Device: *(.+)", said)
    return layers, profile, card[1].strip() if card else ""
