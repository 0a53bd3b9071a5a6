"""Opening a TensorRT: its version is asked first, and each reason not to use it is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from detrx.errors import EngineError

pytestmark = pytest.mark.needs("tensorrt-headers")


def test_the_first_that_fits_is_taken(pairing) -> None:
    library = pairing.adapter.Library(["libdetrx_none.so", "libm.so.6", str(pairing.library)])
    assert library.version == pairing.version
    assert library.path == str(pairing.library)


def test_no_library(pairing) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)Tried:\n  libdetrx_none.so: .*No such file"):
        pairing.adapter.Library(["libdetrx_none.so"])


def test_a_library_that_is_none_of_tensorrt(pairing) -> None:
    with pytest.raises(EngineError, match=r"libm.so.6: is no TensorRT: it has no getInferLibVersion"):
        pairing.adapter.Library(["libm.so.6"])


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (7203, "TensorRT 7.2.3"),
        (8400, "TensorRT 8.4.0"),
        (100000, "TensorRT 10.0.0"),
        (120000, "TensorRT 12.0.0"),
    ],
)
def test_other_versions_are_refused(pairing, monkeypatch, number: int, name: str) -> None:
    monkeypatch.setenv("DETRX_FAKE_VERSION", str(number))
    with pytest.raises(
        EngineError, match=rf"is {name}, and this adapter was compiled for TensorRT \d+\.\d+\.\d+"
    ):
        pairing.adapter.Library([str(pairing.library)])


def test_rtx_is_told_apart(pairing, monkeypatch) -> None:
    monkeypatch.setenv("DETRX_FAKE_VERSION", "10701")
    with pytest.raises(EngineError, match=r"is TensorRT-RTX 1\.7\.1.*pip install tensorrt-rtx pycuda"):
        pairing.adapter.Library([str(pairing.library)])


@pytest.mark.parametrize(
    ("without", "words"),
    [("VERSION", "has no getInferLibVersion"), ("RUNTIME", "without createInferRuntime_INTERNAL")],
)
def test_a_missing_symbol(pairing, build_fake, without: str, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        pairing.adapter.Library([str(build_fake(pairing.root, without=without))])


@pytest.mark.parametrize("address", ["0", "228"])
def test_a_tensorrt_that_does_not_start(pairing, monkeypatch, address: str) -> None:
    """0x228 is what the lean library of TensorRT 11.4 answers where there is no driver."""
    monkeypatch.setenv("DETRX_FAKE_RUNTIME", address)
    adapter = pairing.adapter
    library = adapter.Library([str(pairing.library)])
    with pytest.raises(EngineError, match=r"(?s)does not start; `nvidia-smi`.*CUDA initialization failure"):
        adapter.Engine(library, adapter.host_device(), pairing.plan())


def test_numbers_of_all_versions(adapters) -> None:
    for adapter in adapters.values():
        assert adapter.version_of(8502) == ("TensorRT 8.5.2", False)
        assert adapter.version_of(101600) == ("TensorRT 10.16.0", False)
        assert adapter.version_of(10701) == ("TensorRT-RTX 1.7.1", True)


@pytest.mark.needs("tensorrt-lean")
def test_nvidias_own_library_is_opened(adapters) -> None:
    """The lean runtime from PyPI: it says its version, speaks through our logger and needs a GPU."""
    spec = importlib.util.find_spec("tensorrt_lean_libs")
    assert spec is not None
    found = sorted(Path(next(iter(spec.submodule_search_locations or ()))).glob("libnvinfer_lean.so.*"))
    major = int(found[0].suffix[1:])
    if major not in adapters:
        pytest.skip(f"no headers of TensorRT {major} here")
    adapter = adapters[major]
    library = adapter.Library([str(found[0])])
    assert library.version[0] == major
    for other in set(adapters) - {major}:
        with pytest.raises(EngineError, match=f"is TensorRT {major}"):
            adapters[other].Library([str(found[0])])
    if not Path("/proc/driver/nvidia/version").exists():
        with pytest.raises(EngineError, match="CUDA initialization failure"):
            adapter.Engine(library, adapter.host_device(), b"no plan")
