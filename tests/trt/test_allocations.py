"""A run asks for no memory: not detrx's code, not the bindings, not what lies between."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import building
import pytest

pytestmark = pytest.mark.needs("tensorrt-headers")

COUNT = """
import ctypes, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import building

allocations = ctypes.CDLL(None).detrx_allocations
allocations.restype = ctypes.c_long
adapter = building.load(sys.argv[2], building.Path(sys.argv[3]))
root = building.Path(sys.argv[4])
pairing = building.Pairing(adapter, building.build_fake(root), root, building.version_of(root))
device = adapter.cuda_device(0)
session = adapter.Session(pairing.open(device=device), ["pixels"], ["scores", "boxes"])
inputs = np.ones((2, 3, 4, 6), np.float32),
outputs = np.empty((2, 5), np.float32), np.empty((2, 5, 4), np.float32)
times = range(1000)
run = session.run
for _ in times:
    run(inputs, outputs)
before = allocations()
for _ in times:
    run(inputs, outputs)
after = allocations()
held = [bytes(1000) for _ in times]
print(after - before, allocations() - after >= 1000, outputs[0][0, 0])
"""


@pytest.mark.skipif(building.SANITIZE != "", reason="the sanitizer answers for memory itself")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the counter is one for glibc")
def test_a_thousand_runs_allocate_nothing(pairing) -> None:
    counter = building.build_library("count_malloc")
    adapter = pairing.adapter
    environment = {
        "LD_PRELOAD": str(counter),
        "DETRX_CUDA_DRIVER": str(building.build_driver()),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    arguments = [building.FOLDER, adapter.__name__.split(".")[-1], adapter.__file__, str(pairing.root)]
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "True", "2.0"]
