"""ONNX Runtime: the backend that works everywhere."""

from __future__ import annotations

import logging
import mmap
import os
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, List, Optional

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DeviceError, ExportError, MissingBackendError, pip_install
from detrx.runtime.backend import Calls
from detrx.types import ModelInfo, Raw

log = logging.getLogger(__name__)

SPIN_US = 100
"""Microseconds that a thread waits awake for the next part of a call."""
OUTPUTS = ("scores", "labels", "boxes")
MORE = ("masks", "queries")
"""Outputs that only models with masks have; the second those alone whose masks are merged in that order."""
METADATA_KEY = "detrx"
PRECISION_KEY = "precision"
"""What `detrx export --precision` wrote the graph in."""
REMEDY = "write it with `detrx export WEIGHTS --to onnx`"
# The key of an external tensor's place as protobuf writes it: field 1, eight bytes.
_EXTERNAL = b"\n\x08location"


class OnnxBackend:
    """A graph that ends in boxes, described by its metadata. ONNX Runtime lets threads share a session."""

    def __init__(self, path: Path, *, device: str = "auto", threads: Optional[int] = None) -> None:
        ort = _onnxruntime()
        _refuse_external_data(path)
        providers = _providers(ort, device)
        self._session: Any = _open_session(ort, path, providers, threads)
        self._threads = 1 if len(providers) > 1 else threads or cores()
        self._run_options: Any = ort.RunOptions
        self._open_single = partial(_open_session, ort, path, providers, 1)
        self._single: Any = None
        self.info = _read_info(self._session, path)
        self.batch: Optional[int] = _check_graph(self._session, self.info, path)
        names = {output.name for output in self._session.get_outputs()}
        self._outputs = (*OUTPUTS, *(name for name in MORE if name in names))
        provider = self._session.get_providers()[0].replace("ExecutionProvider", "")
        precision = self._session.get_modelmeta().custom_metadata_map.get(PRECISION_KEY)
        words = [f"ONNX Runtime {ort.__version__} on {provider}", *([precision] if precision else [])]
        self.description = ", ".join(words)

    def infer(self, pixels: NDArray[np.float32]) -> Raw:
        return Raw(*self._session.run(self._outputs, {"pixels": pixels}))

    def calls(self, *, most: int) -> Calls:
        """A thread to each of several calls, so that none waits for another: rt-n at 320 takes 28 ms of processor
        time so, and 38 where two threads share a call. The second session is opened at the first use."""
        at_once = max(1, min(most, self._threads))
        if at_once > 1 and self._single is None:
            self._single = self._open_single()
        session, outputs = self._single if at_once > 1 else self._session, self._outputs
        options = self._run_options()

        def infer(pixels: NDArray[np.float32]) -> Raw:
            return Raw(*session.run(outputs, {"pixels": pixels}, options))

        def abort() -> None:
            options.terminate = True  # looked at before each node of the graph

        return Calls(at_once, infer, abort)

    def close(self) -> None:
        self._session = self._single = None


def open_model(path: Path, *, device: str, threads: Optional[int]) -> OnnxBackend:
    """What :func:`detrx.runtime.backend.open_backend` calls for ``.onnx``.

    Raises:
        ExportError: not a graph that detrx wrote, or damaged.
        DeviceError: "cuda" was asked for and this ONNX Runtime has none.
        MissingBackendError: onnxruntime is not installed.
    """
    return OnnxBackend(path, device=device, threads=threads)


def cores() -> int:
    """Processor cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingBackendError("ONNX Runtime", f"Type: {pip_install('cpu')}") from error
    return onnxruntime  # type: ignore[no-any-return]


def _providers(ort: ModuleType, device: str) -> List[str]:
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise DeviceError(
            "[OnnxBackend] device 'cuda' needs an ONNX Runtime built for it, and this one has "
            f"{', '.join(ort.get_available_providers())}; `pip install onnxruntime-gpu`, or pass device='cpu'"
        )
    use_cuda = has_cuda and device != "cpu"
    return ["CUDAExecutionProvider", "CPUExecutionProvider"] if use_cuda else ["CPUExecutionProvider"]


def _refuse_external_data(path: Path) -> None:
    """Weights beside the file could point anywhere on the disk; detrx never writes them so."""
    if path.stat().st_size == 0:
        raise ExportError(f"[OnnxBackend] {path} is empty; {REMEDY}")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_EXTERNAL) >= 0:
            raise ExportError(
                f"[OnnxBackend] {path} keeps tensors in other files, which detrx refuses; {REMEDY}"
            )


def _open_session(ort: ModuleType, path: Path, providers: List[str], threads: Optional[int]) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Threads spin for work during a call, which is a fifth quicker where nothing else runs, and not between calls,
    # where they would take the cores from the camera, the letterbox and other processes. They spin no longer than
    # nearly all gaps of rt-n's graph last: beside three busy processes on two cores a frame took 143 ms with ONNX
    # Runtime's own limit, 73 ms with this one and 44 ms without. Versions that do not know the limit pass over it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    # 8-bit weights on a processor without VNNI: without this, sums of two products may overflow 16 bits.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    # ONNX Runtime's own exceptions share no base class below Exception.
    except Exception as error:
        raise ExportError(f"[OnnxBackend] {path} cannot be opened: {error}; {REMEDY}") from error
    if providers[0] not in session.get_providers():
        log.warning("ONNX Runtime could not start %s and runs on the CPU", providers[0])
    return session


def _read_info(session: Any, path: Path) -> ModelInfo:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ExportError(f"[OnnxBackend] {path} has no class names (metadata {METADATA_KEY!r}); {REMEDY}")
    try:
        return ModelInfo.from_json(text)
    except ValueError as error:
        raise ExportError(f"[OnnxBackend] {path} has a damaged description: {error}; {REMEDY}") from error


def _check_graph(session: Any, info: ModelInfo, path: Path) -> Optional[int]:
    """The fixed batch of the graph, or None."""
    inputs = session.get_inputs()
    outputs = {output.name for output in session.get_outputs()}
    if [entry.name for entry in inputs] != ["pixels"] or not outputs.issuperset(OUTPUTS):
        raise ExportError(
            f"[OnnxBackend] {path} must take 'pixels' and give {', '.join(OUTPUTS)}, it takes "
            f"{', '.join(entry.name for entry in inputs)} and gives {', '.join(sorted(outputs))}; {REMEDY}"
        )
    shape = inputs[0].shape
    if list(shape[1:]) != [3, *info.canvas]:
        raise ExportError(f"[OnnxBackend] {path} takes {shape} but says canvas {info.canvas}; {REMEDY}")
    return shape[0] if isinstance(shape[0], int) else None
