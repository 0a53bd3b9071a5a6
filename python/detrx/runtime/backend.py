"""The one face of everything that runs a model."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Protocol, Union

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ConfigError
from detrx.models import hub
from detrx.types import ModelInfo, Raw

DEVICES = ("auto", "cpu", "cuda")
WEIGHTS = (".safetensors", ".pt", ".pth")
ENGINES = (".engine", ".plan")
BUNDLED = {"demo": Path(__file__).parents[1] / "assets" / "demo.onnx"}
"""Models that come with the package, by name."""
FILES = ("best.safetensors", "last.safetensors", "best.onnx", "model.safetensors")
"""What is looked for in a folder: a run's own, and what transformers writes."""


class Calls(NamedTuple):
    """A way to run a model for who has many pictures."""

    at_once: int
    """Calls under way at the same time that give the most pictures a second."""
    infer: Callable[[Any], Raw]
    """Takes pixels as ``Backend.infer``, or whatever else Detector.prepare gave."""
    abort: Callable[[], None]
    """End this way's own calls, those under way soon and with an error. A backend that cannot does nothing."""


class Backend(Protocol):
    """A loaded model. ``infer`` may be called from several threads at once."""

    info: ModelInfo
    """What the model is."""
    description: str
    """Library, version and device, for people."""
    batch: Optional[int]
    """Images to one call, or None where any number will do."""

    def infer(self, pixels: NDArray[np.float32]) -> Raw:
        """Run (B, 3, h, w) float32 normalised pixels; the answer holds its own memory."""
        ...

    def close(self) -> None:
        """Give the model's memory back; later calls of ``infer`` are the caller's mistake."""
        ...


def open_backend(path: Union[str, Path], *, device: str = "auto", threads: Optional[int] = None) -> Backend:
    """Choose the runtime by the file: ``.onnx``, a TensorRT engine, or weights in ``.safetensors``, ``.pt``, ``.pth``.

    Args:
        path: the model.
        device: "auto" (a GPU where there is one), "cpu" or "cuda" (an error where there is none).
        threads: CPU threads for one call; None leaves it to the library.

    Raises:
        ConfigError: no such file, a suffix or device that detrx does not know, or ``threads`` below 1.
    """
    path = Path(path)
    if device not in DEVICES:
        raise ConfigError(f"[open_backend] device must be one of {', '.join(DEVICES)}, got {device!r}")
    if threads is not None and threads < 1:
        raise ConfigError(f"[open_backend] threads must be 1 or more, got {threads}")
    rooms = {".onnx": "detrx.runtime.onnx", **dict.fromkeys(WEIGHTS, "detrx.runtime.torch")}
    rooms.update(dict.fromkeys(ENGINES, "detrx.runtime.tensorrt"))
    room = rooms.get(path.suffix.lower())
    if room is None:
        raise ConfigError(
            f"[open_backend] a model must end in {', '.join(rooms)}, got {path.name!r}; "
            f"make one with `detrx export`"
        )
    if not path.is_file():
        raise ConfigError(
            f"[open_backend] no such file: {path}; `detrx train` and `detrx export` write models"
        )
    opened: Backend = importlib.import_module(room).open_model(path, device=device, threads=threads)
    return opened


def find_model(model: Union[str, Path]) -> Path:
    """A model file from a path, a run folder, or the name of a bundled or a published model, which is then fetched.

    Raises:
        ConfigError: there is none.
        DownloadError: it is published and cannot be fetched.
    """
    path = BUNDLED.get(str(model)) or hub.local(model)
    if path.is_dir():
        for name in FILES:
            if (path / name).is_file():
                return path / name
        raise ConfigError(f"[find_model] {path} must hold one of {', '.join(FILES)}; name the model file")
    if path.is_file():
        return path
    if str(model) in BUNDLED:
        raise ConfigError(
            f"[find_model] this installation lacks the bundled model {path}; "
            "`pip install --force-reinstall --no-deps .` in the folder of detrx's source"
        )
    raise ConfigError(
        f"[find_model] no such file or model: {model}. Give an .onnx or .safetensors file, a run folder, or "
        f"one of {', '.join([*BUNDLED, *hub.FILES])}; `detrx train DATA_FOLDER --model rt-n` makes one"
    )
