"""Work laid under a device's roofline: each layer takes as long as the slower of its arithmetic and its traffic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

from detrx.errors import ConfigError
from detrx.estimate.devices import Device
from detrx.estimate.graph import Layer, Work

PRECISIONS = ("fp32", "fp16", "int8-conv", "int8")
"""int8-conv: 8 bits in convolutions, 16-bit floats elsewhere; int8: 8 bits in all layers."""


@dataclass(frozen=True)
class Efficiency:
    """What share of its ceilings a runtime reaches."""

    matrix: float
    bandwidth: float
    launches: bool
    """Whether the gaps between kernels count."""


IDEAL = Efficiency(1.0, 1.0, launches=False)
"""What no runtime can beat with these layers."""
GOOD = Efficiency(0.5, 0.7, launches=False)
"""A tuned runtime; large convolutions reach it."""
EXPECTED = Efficiency(0.3, 0.6, launches=True)
"""What published single-picture timings of TensorRT come to; they lie between 12 and 35 % of the matrix peak."""


@dataclass(frozen=True)
class LayerTime:
    """One layer on one device."""

    name: str
    operators: Tuple[str, ...]
    kind: str
    """"conv", "matmul" or "other"."""
    gflop: float
    mb: float
    """Mega bytes that cross the memory bus."""
    ideal_ms: float
    expected_ms: float
    bound: str
    """What limits it ideally: "arithmetic" or "memory"."""


@dataclass(frozen=True)
class Latency:
    """One precision on one device; milliseconds of one call."""

    precision: str
    ideal_ms: float
    good_ms: float
    expected_ms: float
    traffic_mb: float
    weights_mb: float
    activations_mb: float
    """The most that lies in memory at once, weights not counted."""
    memory_share: float
    """The share of the ideal time in layers that wait for memory."""
    layers: Tuple[LayerTime, ...]


def latency(work: Work, device: Device, *, precision: str) -> Latency:
    """How long a graph takes on a device.

    Raises:
        ConfigError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"[estimate] precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    layers = tuple(_layer_time(layer, device, precision) for layer in work.layers)
    ideal = sum(layer.ideal_ms for layer in layers)
    waiting = sum(layer.ideal_ms for layer in layers if layer.bound == "memory")
    widest = {"fp32": 4, "fp16": 2, "int8-conv": 2, "int8": 1}[precision]
    return Latency(
        precision=precision,
        ideal_ms=ideal,
        good_ms=sum(_seconds(layer, device, precision, GOOD) for layer in work.layers) * 1e3,
        expected_ms=sum(layer.expected_ms for layer in layers),
        traffic_mb=sum(layer.mb for layer in layers),
        weights_mb=_weight_bytes(work, precision) / 1e6,
        activations_mb=work.live * widest / 1e6,
        memory_share=waiting / ideal if ideal else 0.0,
        layers=layers,
    )


def _layer_time(layer: Layer, device: Device, precision: str) -> LayerTime:
    return LayerTime(
        name=layer.name,
        operators=layer.operators,
        kind=layer.kind,
        gflop=(layer.matrix + layer.pointwise) / 1e9,
        mb=_traffic(layer, precision) / 1e6,
        ideal_ms=_seconds(layer, device, precision, IDEAL) * 1e3,
        expected_ms=_seconds(layer, device, precision, EXPECTED) * 1e3,
        bound="memory"
        if _moving(layer, device, precision) > _computing(layer, device, precision)
        else "arithmetic",
    )


def _seconds(layer: Layer, device: Device, precision: str, reached: Efficiency) -> float:
    computing = _computing(layer, device, precision) / reached.matrix
    moving = _moving(layer, device, precision) / reached.bandwidth
    return max(computing, moving) + (device.launch_us * 1e-6 if reached.launches else 0.0)


def _computing(layer: Layer, device: Device, precision: str) -> float:
    """Seconds; the matrix product on tensor cores and the rest on CUDA cores run at the same time."""
    return max(layer.matrix / _peaks(device)[_bytes(layer, precision)], layer.pointwise / device.fp32) / 1e12


def _peaks(device: Device) -> Dict[int, float]:
    """Tera operations a second of matrix products, by the bytes of a number."""
    return {4: device.fp32, 2: device.fp16, 1: device.int8}


def roofs(device: Device, precision: str) -> List[Tuple[str, float]]:
    """Name and tera operations a second of each ceiling that a precision meets."""
    tensor = {
        "fp32": [],
        "fp16": [("fp16", device.fp16)],
        "int8-conv": [("int8", device.int8), ("fp16", device.fp16)],
        "int8": [("int8", device.int8)],
    }[precision]
    plain = "CUDA cores, fp32" if device.tensor_cores else "processor, fp32"
    return [*((f"tensor cores, {name}", peak) for name, peak in tensor), (plain, device.fp32)]


def _moving(layer: Layer, device: Device, precision: str) -> float:
    return _traffic(layer, precision) / (device.bandwidth * 1e9)


def _traffic(layer: Layer, precision: str) -> int:
    return (layer.weights + layer.activations) * _bytes(layer, precision) + layer.indices


def _bytes(layer: Layer, precision: str) -> int:
    """Of one float in a layer."""
    if precision == "int8-conv":
        return 1 if layer.kind == "conv" else 2
    return {"fp32": 4, "fp16": 2, "int8": 1}[precision]


def _weight_bytes(work: Work, precision: str) -> float:
    """Each weight once; where layers share weights, at the mean width of those that read them."""
    read = sum(layer.weights for layer in work.layers)
    held = sum(layer.weights * _bytes(layer, precision) for layer in work.layers)
    return work.weights * held / read if read else 0.0
