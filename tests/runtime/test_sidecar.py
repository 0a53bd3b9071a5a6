"""The description beside an engine: written and read back, and refused where it does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from detrx.errors import EngineError, TrustError
from detrx.runtime.sidecar import Sidecar, file_sha256, read_sidecar, sidecar_path, version_of
from detrx.types import ModelInfo

INFO = ModelInfo("rt-n", ("disc", "ring"), (7, 3), (64, 96))


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine of 64 bytes and its description."""
    path = tmp_path / "model.engine"
    path.write_bytes(bytes(range(64)))
    sidecar = Sidecar(INFO, "10.3.0", "tensorrt", file_sha256(path), "ab" * 32, batch=(1, 2, 4))
    sidecar_path(path).write_text(sidecar.to_json())
    return path


def test_there_and_back(engine: Path) -> None:
    found = read_sidecar(engine)
    assert found.info == INFO
    assert found.batch == (1, 2, 4)
    full = replace(found, compute_capability="8.7", driver="540.4", plugin_sha256="cd", gate={"score": 1e-4})
    assert Sidecar.from_json(full.to_json()) == full


def test_no_description_is_no_trust(engine: Path) -> None:
    sidecar_path(engine).unlink()
    with pytest.raises(TrustError, match=r"model\.engine\.json.*detrx export WEIGHTS --to engine"):
        read_sidecar(engine)


@pytest.mark.parametrize(
    "change",
    [lambda b: b"", lambda b: b[:40], lambda b: b[:9] + bytes([b[9] ^ 1]) + b[10:]],
    ids=["empty", "cut", "one bit"],
)
def test_another_engine(engine: Path, change) -> None:
    engine.write_bytes(change(engine.read_bytes()))
    with pytest.raises(EngineError, match="is not the file that"):
        read_sidecar(engine)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("info"),
        lambda d: d.update(format_version=2),
        lambda d: d["tensorrt"].update(version="ten"),
        lambda d: d["tensorrt"].update(flavour="lean"),
        lambda d: d["batch"].update(min=9),
        lambda d: d.update(batch=[1]),
        lambda d: d["info"].update(canvas=[1, 1]),
    ],
    ids=["no info", "later format", "version", "flavour", "batch", "list", "canvas"],
)
def test_a_description_that_does_not_fit(engine: Path, change) -> None:
    place = sidecar_path(engine)
    found = json.loads(place.read_text())
    change(found)
    place.write_text(json.dumps(found))
    with pytest.raises(EngineError, match=r"model\.engine\.json is damaged"):
        read_sidecar(engine)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"\xff\xfe"])
def test_no_json(engine: Path, text: bytes) -> None:
    sidecar_path(engine).write_bytes(text)
    with pytest.raises(EngineError, match="is damaged"):
        read_sidecar(engine)


def test_versions() -> None:
    assert version_of("8.5.2.2") == (8, 5, 2)
    with pytest.raises(ValueError, match=r"as 10\.3\.0"):
        version_of("10.3")
