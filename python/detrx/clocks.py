"""What a machine says of its clocks and power: a benchmark without them cannot be repeated."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Dict, Optional

SYS = Path("/sys")


def clocks(root: Path = SYS) -> Dict[str, float]:
    """MHz: the fastest and slowest core, and each device with a clock of its own (a Jetson's GPU and memory).

    Args:
        root: where /sys is.
    """
    found: Dict[str, float] = {}
    pattern = "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"
    cores = [value for path in sorted(root.glob(pattern)) for value in [_number(path)] if value is not None]
    if cores:
        found["cpu least"], found["cpu most"] = min(cores) / 1e3, max(cores) / 1e3
    for path in sorted(root.glob("class/devfreq/*/cur_freq")):
        value = _number(path)
        if value is not None:
            found[path.parent.name] = value / 1e6
    return {name: round(value, 1) for name, value in found.items()}


def power_mode() -> str:
    """What ``nvpmodel`` says on a Jetson, else the governor of the first core, else nothing."""
    command = shutil.which("nvpmodel")
    if command is not None:
        told = subprocess.run([command, "-q"], capture_output=True, text=True, timeout=5, check=False).stdout
        lines = [line for line in told.splitlines() if "Power Mode" in line]
        if lines:
            return lines[0].rpartition(":")[2].strip()
    governor = SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return f"governor {governor.read_text().strip()}" if governor.is_file() else ""


def _number(path: Path) -> Optional[float]:
    """What a file of /sys says; some cannot be read although they are there."""
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
