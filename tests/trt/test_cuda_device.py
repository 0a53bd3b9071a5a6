"""The GPU as a session sees it, over a driver of ours in the memory of this process."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator

import building
import numpy as np
import pytest

from detrx.errors import DeviceError

pytestmark = pytest.mark.needs("tensorrt-headers")
NAMES = ["scores", "boxes"]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """What is not given back, or a context that is left on a thread's stack, fails the test."""
    path = building.build_driver()
    monkeypatch.setenv("DETRX_CUDA_DRIVER", str(path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    library = ctypes.CDLL(str(path))
    gc.collect()
    before = library.fake_alive()
    yield library
    library.fake_fail(b"", 0)
    gc.collect()
    assert (library.fake_alive(), library.fake_depth()) == (before, 0)


@pytest.fixture
def adapter(adapters):
    return adapters[max(adapters)]


def answer(pairing, session) -> None:
    pixels = np.random.default_rng(0).uniform(0, 9, (3, 3, 4, 6)).astype(np.float32)
    scores, boxes = np.empty((3, 5), np.float32), np.empty((3, 5, 4), np.float32)
    session.run((pixels,), (scores, boxes))
    np.testing.assert_array_equal(scores, 2 * pixels.reshape(3, -1)[:, :5])
    np.testing.assert_array_equal(boxes.reshape(3, -1), 2 * pixels.reshape(3, -1)[:, :20])


def test_a_session_on_it(pairing, driver) -> None:
    device = pairing.adapter.cuda_device(0)
    assert device.name == "Orin, compute capability 8.7, driver for CUDA 12.6"
    assert device.capability == "8.7"
    session = pairing.adapter.Session(pairing.open(device=device), ["pixels"], NAMES)
    answer(pairing, session)
    assert session.profile(2) == [("copy", 0.5), ("scale", 0.25)]


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        ("cuMemAlloc_v2", 2, r"cannot allocate 512 bytes: out of memory .*fewer images or a smaller canvas"),
        ("cuMemHostAlloc", 2, r"cannot allocate \d+ bytes: out of memory"),
        ("cuStreamCreate", 719, "cannot make a stream: unspecified launch failure"),
        ("cuMemcpyHtoDAsync_v2", 719, r"cannot copy to the device: .*CUDA_ERROR_LAUNCH_FAILED, 719\)"),
        ("cuMemcpyDtoHAsync_v2", 719, "cannot copy from the device"),
        ("cuStreamSynchronize", 719, "cannot wait for the device: .*only a new process"),
        ("cuCtxPushCurrent_v2", 4242, r"cannot enter the device: unknown error \(no name, 4242\)"),
    ],
)
def test_what_the_driver_refuses(pairing, driver, function: str, code: int, words: str) -> None:
    """The same session answers again where the next call succeeds."""
    device = pairing.adapter.cuda_device(0)
    engine = pairing.open(device=device)

    def attempt() -> None:
        session = pairing.adapter.Session(engine, ["pixels"], NAMES)
        answer(pairing, session)

    driver.fake_fail(function.encode(), code)
    with pytest.raises(DeviceError, match=words):
        attempt()
    driver.fake_fail(b"", 0)
    attempt()


def test_a_run_that_fails_leaves_a_session_that_runs(pairing, driver) -> None:
    device = pairing.adapter.cuda_device(0)
    session = pairing.adapter.Session(pairing.open(device=device), ["pixels"], NAMES)
    driver.fake_fail(b"cuStreamSynchronize", 719)
    with pytest.raises(DeviceError):
        answer(pairing, session)
    driver.fake_fail(b"", 0)
    answer(pairing, session)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("cuInit", "cannot start the driver"),
        ("cuDeviceGet", "cannot find the device"),
        ("cuDevicePrimaryCtxRetain", "cannot take the device"),
    ],
)
def test_a_device_that_does_not_open(adapter, driver, function: str, words: str) -> None:
    driver.fake_fail(function.encode(), 719)
    with pytest.raises(DeviceError, match=words):
        adapter.cuda_device(0)


def test_a_device_that_does_not_answer(adapter, driver) -> None:
    device = adapter.cuda_device(0)
    driver.fake_fail(b"cuDeviceGetAttribute", 719)
    with pytest.raises(DeviceError, match="cannot ask the device"):
        assert device.capability


def test_no_such_device(adapter, driver) -> None:
    with pytest.raises(DeviceError, match=r"find the device.*101\)"):
        adapter.cuda_device(3)


def test_hidden_devices(adapter, driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError, match=r"no CUDA-capable device.*CUDA_VISIBLE_DEVICES must not hide it"):
        adapter.cuda_device(0)


def test_no_driver(adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETRX_CUDA_DRIVER", "libdetrx_none.so")
    with pytest.raises(DeviceError, match=r"no NVIDIA driver \(libdetrx_none.so\).*nvidia-smi.*--gpus all"):
        adapter.cuda_device(0)


def test_a_driver_that_is_too_old(adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETRX_CUDA_DRIVER", str(building.build_driver(without="MEMORY")))
    with pytest.raises(DeviceError, match="lacks cuMemAlloc_v2; install a newer one"):
        adapter.cuda_device(0)
