"""Run a small part of the CUDA tests under compute-sanitizer, where the tool exists: memcheck, then racecheck.

    python scripts/sanitize.py

memcheck sees reads and writes outside of what was allocated, racecheck threads of a block that meet in shared memory
without a barrier between them. Both slow a kernel down a hundredfold, so that only the smallest problems are run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = "tests/cuda/test_kernels.py"
CHECKS = {
    "memcheck": [],
    "racecheck": ["--racecheck-report", "all"],
}


def find_tool() -> str | None:
    """compute-sanitizer on the PATH or beside nvcc."""
    compiler = shutil.which("nvcc")
    beside = [] if compiler is None else [str(Path(compiler).resolve().with_name("compute-sanitizer"))]
    places = ["compute-sanitizer", *beside, "/usr/local/cuda/bin/compute-sanitizer"]
    return next((found for place in places if (found := shutil.which(place))), None)


def main() -> int:
    tool = find_tool()
    if tool is None:
        print("compute-sanitizer is not here: memcheck and racecheck are left out")
        return 0
    # torch's allocator hands out parts of large blocks, inside which nothing is out of bounds.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "DETRX_REQUIRE": "cuda"}
    codes = []
    for check, options in CHECKS.items():
        command = [tool, "--tool", check, *options, "--error-exitcode", "9", "--target-processes", "all"]
        tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS, "-k", "small"]
        print(f"compute-sanitizer {check}", flush=True)
        codes.append(subprocess.run([*command, *tests], cwd=ROOT, env=environment, check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
