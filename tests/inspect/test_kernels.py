"""Traces of Nsight Systems and in Chrome's format."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from detrx.errors import EngineError
from detrx.inspect.kernels import read_kernels

TENSOR = "trt_volta_h884cudnn_256x64_ldg8_relu_exp_small_nhwc_tn_v1"
OTHER = "generatedNativePointwise"
CALLS = [(TENSOR, 100, 700_100), (OTHER, 800_000, 1_000_000), (TENSOR, 2_000_000, 2_000_000 + 900_000)]
"""Name, start and end in nanoseconds: 1.6 ms in two calls, 0.2 in one."""


def database(path: Path) -> None:
    names = {TENSOR: 7, OTHER: 9}
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT NOT NULL)")
        columns = "start INT, end INT, deviceId INT, shortName INT, demangledName INT"
        made.execute(f"CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL ({columns})")
        made.executemany("INSERT INTO StringIds VALUES (?, ?)", [(i, name) for name, i in names.items()])
        rows = [(start, end, 0, 1, names[name]) for name, start, end in CALLS]
        made.executemany("INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (?, ?, ?, ?, ?)", rows)


def summary(path: Path) -> None:
    path.write_text(
        "Processing [run.sqlite] with [cuda_gpu_kern_sum.py]...\n\n"
        "Time (%),Total Time (ns),Instances,Avg (ns),Name\n"
        f"88.2,1600000,2,800000.0,{TENSOR}\n"
        f'11.8,200000,1,200000.0,"{OTHER}"\n'
    )


def trace_rows() -> list[dict[str, object]]:
    rows = [{"Start (ns)": start, "Duration (ns)": end - start, "Name": name} for name, start, end in CALLS]
    return [*rows, {"Start (ns)": 5, "Duration (ns)": 900, "Name": "[CUDA memcpy Host-to-Device]"}]


def trace(path: Path) -> None:
    path.write_text(json.dumps(trace_rows()))


def chrome(path: Path) -> None:
    events = [
        {"ph": "X", "cat": "kernel", "name": name, "ts": start / 1e3, "dur": (end - start) / 1e3}
        for name, start, end in CALLS
    ]
    events += [{"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 0, "dur": 900}]
    path.write_text(json.dumps({"schemaVersion": 1, "traceEvents": events}))


@pytest.mark.parametrize("write", [database, summary, trace, chrome])
def test_each_format_tells_the_same(tmp_path: Path, write) -> None:
    path = tmp_path / "run"
    write(path)
    first, second = read_kernels(path)
    assert (first.name, first.calls, first.ms, first.cores.kind) == (TENSOR, 2, pytest.approx(1.6), "tensor")
    assert (second.name, second.calls, second.ms, second.cores.kind) == (OTHER, 1, pytest.approx(0.2), "cuda")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither SQLite"),
        (b"NVIDIA report \x00\xff\xfe", "nsys export --type=sqlite"),
        (b'{"Layers": []}', "KeyError: 'traceEvents'"),
        (b'[{"name": "a", "averageMs": 1}]', "KeyError: 'Name'"),
        (b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a", "dur": 1}]}', "holds no kernel"),
        (b"SQLite format 3\x00 and then rubbish", "no trace of kernels"),
        (b'{"traceEvents": [', "no trace of kernels"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "run"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=words):
        read_kernels(path)


def test_a_database_without_kernels_and_no_file(tmp_path: Path) -> None:
    path = tmp_path / "run.sqlite"
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT NOT NULL)")
    with pytest.raises(EngineError, match="no such table: CUPTI_ACTIVITY_KIND_KERNEL"):
        read_kernels(path)
    with pytest.raises(EngineError, match="cannot be read"):
        read_kernels(tmp_path / "none")
