"""What every test shares: one thread, and the global random states put back after it."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

# On many small tensors, threads cost more than they give, and make sums depend on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Read by pytest-timeout where it is installed (a GPU machine has pytest alone), in seconds a test.
os.environ.setdefault("PYTEST_TIMEOUT", "120")

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def keep_random_states() -> Iterator[None]:
    """Put the global generators back, so that no test depends on which ran before it."""
    plain, array = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    tensor = torch.get_rng_state() if torch else None
    threads = torch.get_num_threads() if torch else None
    yield
    random.setstate(plain)
    np.random.set_state(array)
    if torch:
        torch.set_rng_state(tensor)
        torch.set_num_threads(threads)
