"""Clocks are read where /sys has them, and only there."""

from __future__ import annotations

from pathlib import Path

from detrx.clocks import clocks, power_mode


def test_clocks_of_cores_and_devices(tmp_path: Path) -> None:
    files = {
        "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1190400",
        "devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1907200",
        "devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": "none",
        "class/devfreq/17000000.gv11b/cur_freq": "1109250000",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert clocks(tmp_path) == {"cpu least": 1190.4, "cpu most": 1907.2, "17000000.gv11b": 1109.2}
    assert clocks(tmp_path / "nowhere") == {}


def test_the_power_mode_is_nvpmodels(tmp_path: Path, monkeypatch: object) -> None:
    tool = tmp_path / "nvpmodel"
    tool.write_text("#!/bin/sh\necho 'NV Power Mode: MODE_20W_6CORE'\necho 8\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))  # type: ignore[attr-defined]
    assert power_mode() == "MODE_20W_6CORE"
