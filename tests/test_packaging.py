"""What is installed: the version, the extension, the typing files, the command, the extras."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import detrx
from detrx import native

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(detrx.__file__).parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_one_version_everywhere() -> None:
    (written,) = re.findall(r'^version = "(.+)"$', PYPROJECT, flags=re.MULTILINE)
    assert detrx.__version__ == written
    assert importlib.metadata.version("detrx") == written
    assert native.load().__version__ == written


def test_built_with_names_what_is_compiled_in() -> None:
    built_with = native.load().BUILT_WITH
    assert built_with[0] == "cpu"
    assert set(built_with) <= {"cpu", "cuda", "tensorrt"}
    assert ("cuda" in built_with) <= (ROOT / "csrc" / "cuda").is_dir()


def test_typing_files_are_in_the_package() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_C.pyi").is_file()


def test_the_bundled_model_is_small() -> None:
    assert 100_000 < (PACKAGE / "assets" / "demo.onnx").stat().st_size <= 8_000_000


def test_the_stub_names_what_the_extension_has() -> None:
    tree = ast.parse((PACKAGE / "_C.pyi").read_text(encoding="utf-8"))
    named = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    named |= {node.target.id for node in tree.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    built = {name for name in dir(native.load()) if not name.startswith("__")} | {"__version__"}
    # The CUDA kernels are described whether this machine has them or not.
    assert {name for name in named if not name.startswith("_") or name == "__version__"} == built | {"cuda"}


@pytest.mark.parametrize("name", ["Detector", "evaluate", "export", "train", "Detections", "Frame"])
def test_public_names_are_there(name: str) -> None:
    assert getattr(detrx, name).__module__.startswith("detrx.")
    assert name in dir(detrx)


def test_unknown_names_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Detectr'"):
        detrx.Detectr  # noqa: B018


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("detrx")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "detect" in done.stdout


@pytest.mark.parametrize("extra", ["cpu", "cv", "dev", "eval", "onnx", "pycuda", "tensorrt", "train"])
def test_extras_exist(extra: str) -> None:
    assert extra in (importlib.metadata.metadata("detrx").get_all("Provides-Extra") or [])


def test_the_extra_cpu_is_cv_onnx_and_eval() -> None:
    listed = {
        name: set(re.findall(r'"(.+?)"', text))
        for name, text in re.findall(r"^(cpu|cv|onnx|eval) = \[(.+)\]$", PYPROJECT, flags=re.MULTILINE)
    }
    assert listed["cpu"] == listed["cv"] | listed["onnx"] | listed["eval"]


def test_plain_install_needs_neither_torch_nor_opencv() -> None:
    needed = [line for line in importlib.metadata.requires("detrx") or [] if "extra ==" not in line]
    assert sorted(re.split(r"[<>=!~ ]", line)[0] for line in needed) == ["numpy", "rich", "tyro"]


def test_no_build_output_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    bad = [
        name for name in listed.stdout.splitlines() if re.search(r"\.(so|o|pyc)$|^(build|dist|runs)/", name)
    ]
    assert bad == []
