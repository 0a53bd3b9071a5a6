"""Whether tensor cores run an engine: three kinds of evidence, the cheapest first.

1. Arithmetic: a layer faster than all CUDA cores of the device together can only be running on tensor cores.
2. Names: the kernel that TensorRT chose for a layer names the instruction.
3. A trace: the names of what did run on the GPU, with its time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence, Tuple

from detrx.estimate.devices import Device
from detrx.inspect.kernels import HOW, Kernel
from detrx.inspect.layers import EngineLayer
from detrx.inspect.tactics import CUDA, TENSOR, UNKNOWN, Cores, cores_of

CORES = {"fp32": 1, "tf32": 1, "fp16": 2, "bf16": 2, "int8": 4, "fp8": 2, "int4": 4, "fp4": 2}
"""What CUDA cores do in a type at most, in multiples of their 32-bit floats: two 16-bit floats by HFMA2, four products
of 8 bits by DP4A. That is so on compute capability 7.x; later GPUs but the A100 do as much or less, so that a layer
above it is proven there as well."""
WINOGRAD = 4
"""Winograd's convolution, F(4 x 4, 3 x 3), needs so many times fewer products than are counted."""
PEAKS = {"fp32": "fp32", "int8": "int8", "fp8": "int8", "int4": "int8", "fp4": "int8"}
"""The rate of the device that bounds a type on tensor cores; fp16 where it is not listed."""
SLACK = 1.15
"""Above the peak of the tensor cores by so much, something else is wrong: clocks are at most some per cent higher."""
COUNTERS = "ncu --metrics smsp__inst_executed_pipe_tensor.sum trtexec --loadEngine=ENGINE counts instructions, as root"


@dataclass(frozen=True)
class LayerReport:
    """One layer and what is known of it."""

    name: str
    kind: str
    operation: str
    precision: str
    formats: str
    """Type and layout of its first input and first output."""
    tactic: str
    cores: str
    """"tensor", "cuda" or "unknown", by its tactic."""
    instruction: str
    ms: Optional[float]
    gflop: Optional[float]
    """None where neither its shapes nor an ONNX file say."""
    tflops: Optional[float]
    """Tera operations a second that it reaches."""
    proven: bool
    """It is faster than the CUDA cores of the device could be."""


@dataclass(frozen=True)
class Level:
    """One kind of evidence."""

    number: int
    name: str
    reached: bool
    """The evidence is there, and it shows tensor cores at work."""
    found: str
    """What it shows, in one sentence."""
    need: str
    """What to do to reach it; empty where it is reached."""


def report_of(
    layer: EngineLayer, *, ms: Optional[float], work: Optional[int], device: Optional[Device]
) -> LayerReport:
    """What is known of one layer.

    Args:
        ms: the time of one run; None where it was not measured.
        work: operations of one run; None where that is not known.
        device: where the time was measured; None proves nothing by arithmetic.
    """
    cores = _cores(layer)
    rate = work / ms / 1e9 if ms and work else None
    return LayerReport(
        name=layer.name,
        kind=layer.kind,
        operation=layer.operation,
        precision=layer.precision,
        formats=_formats(layer),
        tactic=layer.tactic,
        cores=cores.kind,
        instruction=cores.instruction,
        ms=ms,
        gflop=None if work is None else work / 1e9,
        tflops=rate,
        proven=bool(rate and device and layer.precision and rate > _bar(layer, cores, device)),
    )


def _bar(layer: EngineLayer, cores: Cores, device: Device) -> float:
    """The rate above which a layer cannot be running on CUDA cores."""
    name = layer.tactic.lower()
    if cores.kind == CUDA or "fft" in name:
        return math.inf
    direct = layer.operation != "conv" or (cores.kind == TENSOR and "winograd" not in name)
    return cuda_peak(device, layer.precision) * (1 if direct else WINOGRAD)


def _cores(layer: EngineLayer) -> Cores:
    found = cores_of(layer.tactic)
    if found.kind == TENSOR and found.instruction == "fused attention" and layer.precision == "fp32":
        return Cores(UNKNOWN, "")
    if not layer.tactic and layer.operation in ("reformat", "pointwise"):
        return Cores(CUDA, "")  # TensorRT's own kernels, which have numbers and no names
    return found


def _formats(layer: EngineLayer) -> str:
    ends = [*layer.inputs[:1], *layer.outputs[:1]]
    texts = [" ".join(filter(None, (end.type, end.layout))) or "?" for end in ends]
    return " > ".join(dict.fromkeys(texts))


def cuda_peak(device: Device, precision: str) -> float:
    """Tera operations a second that the CUDA cores of a device do at most in a type."""
    return device.fp32 * CORES[precision]


def tensor_peak(device: Device, precision: str) -> float:
    """The same of its tensor cores."""
    return float(getattr(device, PEAKS.get(precision, "fp16")))


def levels_of(
    layers: Sequence[LayerReport], kernels: Sequence[Kernel], device: Optional[Device]
) -> Tuple[Level, Level, Level]:
    """What each kind of evidence shows."""
    return _arithmetic(layers, device), _names(layers), _trace(kernels)


def _arithmetic(layers: Sequence[LayerReport], device: Optional[Device]) -> Level:
    name = "arithmetic"
    timed = [layer for layer in layers if layer.tflops is not None]
    if device is None or not timed:
        missing = [
            *(["the device: --device xavier-nx"] if device is None else []),
            *(
                ["times of layers: --profile profile.json"]
                if all(layer.ms is None for layer in layers)
                else []
            ),
        ]
        need = "; ".join(missing) or "shapes that are fixed, or the file that was built: --onnx model.onnx"
        return Level(1, name, False, "not looked at", need)
    proven = [layer for layer in timed if layer.proven]
    share = _share(proven, timed)
    found = (
        f"{len(proven)} of {len(timed)} layers with known work, {share} of it, are faster than the CUDA cores of "
        f"{device.name} could be"
    )
    best = max(
        (layer for layer in timed if layer.precision), key=lambda layer: layer.tflops or 0, default=None
    )
    if best is not None:
        peak = cuda_peak(device, best.precision)
        found += f"; the fastest does {best.tflops:.3g} TOP/s in {best.precision}, where they do {peak:.3g}"
    need = (
        "a layer large enough to be fast: a small one may run on tensor cores and wait for memory all the same; "
        "see the names of kernels"
    )
    return Level(1, name, bool(proven), found, "" if proven else need)


def _share(some: Sequence[LayerReport], all_of: Sequence[LayerReport]) -> str:
    whole = sum(layer.gflop or 0 for layer in all_of)
    return f"{sum(layer.gflop or 0 for layer in some) / whole:.0%}" if whole else "0%"


def _names(layers: Sequence[LayerReport]) -> Level:
    name = "names of kernels"
    named = [layer for layer in layers if layer.tactic]
    if not named:
        need = "tactics in the inspector's text: build with --profilingVerbosity=detailed"
        return Level(2, name, False, "TensorRT names no kernel", need)
    tensor = [layer for layer in named if layer.cores == TENSOR]
    time = sum(layer.ms or 0 for layer in layers)
    share = f", {sum(layer.ms or 0 for layer in tensor) / time:.0%} of the time" if time else ""
    found = f"{len(tensor)} of {len(named)} named kernels name tensor cores{share}"
    hidden = sum(layer.operation == "region" for layer in layers)
    if hidden:
        found += f"; {hidden} {'region shows' if hidden == 1 else 'regions show'} no kernel"
    return Level(
        2, name, bool(tensor), found, "" if tensor else "an engine in fp16 or int8: detrx export --precision"
    )


def _trace(kernels: Sequence[Kernel]) -> Level:
    name = "trace"
    if not kernels:
        return Level(3, name, False, "not looked at", f"{HOW}; then --kernels run.sqlite")
    time = sum(kernel.ms for kernel in kernels)
    shares = [
        f"{sum(kernel.ms for kernel in kernels if kernel.cores.kind == kind) / time:.0%} {text}"
        for kind, text in (
            (TENSOR, "in kernels on tensor cores"),
            (CUDA, "on CUDA cores"),
            (UNKNOWN, "unknown"),
        )
    ]
    tensor = any(kernel.cores.kind == TENSOR for kernel in kernels)
    found = f"of {time:.3g} ms on the GPU: {', '.join(shares)}"
    return Level(
        3, name, tensor, found, "" if tensor else "an engine in fp16 or int8: detrx export --precision"
    )


def next_step(levels: Sequence[Level]) -> str:
    """What would reach the level after the highest that is reached."""
    reached = max((level.number for level in levels if level.reached), default=0)
    above = [level for level in levels if level.number == reached + 1]
    return (
        f"level {above[0].number}, {above[0].name}: {above[0].need}"
        if above
        else f"level 4, counters: {COUNTERS}"
    )
