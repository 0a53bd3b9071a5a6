"""What devices can do at most, as their makers say it. Rates are dense: without the zeros of structured sparsity."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Optional


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

    @property
    def tensor_cores(self) -> bool:
        """Whether it has them; a processor gains nothing from fewer bits, as measured with ONNX Runtime."""
        return self.fp16 > self.fp32


JETSON_LAUNCH, CARD_LAUNCH = 8.0, 4.0

_CORES = "rates are cores x 2 x clock, on tensor cores 8 times that in fp16 and 16 times in int8"

DEVICES: Dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            "xavier-nx", 6.76, 13.5, 0.845, 59.7, 8, JETSON_LAUNCH,
            "Jetson Xavier NX data sheet: 384 cores, 48 tensor cores, 1100 MHz; LPDDR4x-1866 x 128 bits (data sheets "
            f"up to v1.3 say 1600 MHz, which is 51.2 GB/s); {_CORES}",
        ),
        Device(
            "orin-nano", 16.7, 33.4, 2.09, 102.4, 8, JETSON_LAUNCH,
            "Jetson Orin Nano Super data sheet: 1024 cores, 1020 MHz, 67 sparse TOPS, LPDDR5-3200 x 128 bits; "
            f"{_CORES}",
        ),
        Device(
            "orin-nx", 15.0, 30.1, 1.88, 102.4, 16, JETSON_LAUNCH,
            "Jetson Orin NX 16 GB: 1024 cores, 918 MHz (as deviceQuery on the board says), LPDDR5-3200 x 128 bits; "
            f"GPU without DLA; {_CORES}",
        ),
        Device(
            "agx-orin", 42.6, 85.2, 5.33, 204.8, 64, JETSON_LAUNCH,
            "Jetson AGX Orin 64 GB data sheet: 2048 cores, 1300 MHz, LPDDR5-3200 x 256 bits; GPU without DLA; "
            f"{_CORES}",
        ),
        Device(
            "t4", 65.0, 130.0, 8.1, 320.0, 16, CARD_LAUNCH,
            f"NVIDIA T4 data sheet; 2560 cores at 1590 MHz come to the same: {_CORES}",
        ),
        Device(
            "h200", 989.5, 1979.0, 67.0, 4800.0, 141, CARD_LAUNCH,
            "NVIDIA H200 SXM specifications; their tensor figures (1979, 3958) are sparse and halved here",
        ),
        Device(
            "rtx-4090", 165.2, 660.6, 82.6, 1008.0, 24, CARD_LAUNCH,
            "NVIDIA Ada architecture white paper, GeForce RTX 4090: 16384 cores, 2520 MHz; fp16 with sums in fp32",
        ),
        Device(
            "cpu", 0.384, 0.384, 0.384, 51.2, 16, CARD_LAUNCH,
            "an example of a laptop's processor: 4 cores x 3 GHz x 32 operations (AVX2), DDR4-3200 x 128 bits",
        ),
    )
}  # fmt: skip

_CALLED = (
    (r"xavier nx", "xavier-nx"),
    (r"orin nano", "orin-nano"),
    (r"orin nx", "orin-nx"),
    (r"agx orin", "agx-orin"),
    (r"\bt4\b", "t4"),
    (r"\bh200\b", "h200"),
    (r"rtx 4090(?! (laptop|d\b))", "rtx-4090"),
)


def device_called(name: str) -> Optional[Device]:
    """The device that a board or a driver means by a name, or None for one that is not listed."""
    said = name.lower()
    return next((DEVICES[ours] for pattern, ours in _CALLED if re.search(pattern, said)), None)
