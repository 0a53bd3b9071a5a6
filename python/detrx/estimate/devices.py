"""What devices can do at most, as their makers say it. Rates are dense: without the zeros of structured sparsity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict


@dataclass(frozen=True)
class Device:
    """The ceilings of one device."""

    name: str
    fp16: float
    """Tera operations a second of matrix products on tensor cores, 16-bit floats; a multiply-add is two."""
    int8: float
    """The same for 8-bit integers."""
    fp32: float
    """The same for 32-bit floats on CUDA cores, where everything that is no matrix product runs too."""
    bandwidth: float
    """Giga bytes a second of its memory."""
    memory: float
    """Giga bytes; of a Jetson, shared with the processor."""
    launch_us: float
    """Microseconds between two kernels of a CUDA graph. An assumption of ours, in no data sheet."""
    source: str
    """Where the figures come from."""


JETSON_LAUNCH, CARD_LAUNCH = 8.0, 4.0

_CORES = "rates computed from cores and clock"

DEVICES: Dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            "xavier-nx", 6.76, 13.5, 0.845, 59.7, 8, JETSON_LAUNCH,
            f"Jetson Xavier NX data sheet: 384 cores, 48 tensor cores, 1100 MHz, LPDDR4x-1866 x 128; {_CORES}",
        ),
        Device(
            "orin-nano", 16.7, 33.4, 2.09, 102.4, 8, JETSON_LAUNCH,
            f"Jetson Orin Nano Super 8 GB: 1024 cores, 1020 MHz, 67 sparse TOPS, LPDDR5-3200 x 128; {_CORES}",
        ),
        Device(
            "orin-nx", 15.0, 30.1, 1.88, 102.4, 16, JETSON_LAUNCH,
            f"Jetson Orin NX 16 GB data sheet: 1024 cores, 918 MHz, LPDDR5-3200 x 128; GPU without DLA; {_CORES}",
        ),
        Device(
            "agx-orin", 42.6, 85.2, 5.33, 204.8, 64, JETSON_LAUNCH,
            f"Jetson AGX Orin 64 GB data sheet: 2048 cores, 1300 MHz, LPDDR5-3200 x 256; GPU without DLA; {_CORES}",
        ),
        Device("t4", 65.0, 130.0, 8.1, 320.0, 16, CARD_LAUNCH, "NVIDIA T4 data sheet"),
        Device(
            "h200", 989.5, 1979.0, 67.0, 4800.0, 141, CARD_LAUNCH,
            "NVIDIA H200 SXM data sheet; its tensor figures, which are sparse, halved",
        ),
        Device(
            "rtx-4090", 165.2, 660.6, 82.6, 1008.0, 24, CARD_LAUNCH,
            "NVIDIA Ada architecture white paper, GeForce RTX 4090; fp16 with sums in fp32",
        ),
    )
}  # fmt: skip
