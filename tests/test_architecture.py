"""Keeps the floors and the nevers of docs/architecture.md.

Each check takes the root of a tree and answers with complaints. It runs on this tree, which must give none,
and on a small bad tree, which must give one: so a check that has gone blind fails too.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Top to bottom; an import only looks down.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"train"},
    {"evaluation", "bench", "doctor", "estimate", "inspect", "explain", "demo"},
    {"live"},
    {"detector"},
    {"losses", "export", "runtime"},
    {"data", "models", "ops", "draw", "preprocess", "images"},
    {"native", "types", "tensors", "boxes", "clocks", "picture_header", "camera_picture", "callable_package"},
    {"rle", "resample", "panoptic_ids"},
    {"errors"},
)
HEIGHT = {room: -level for level, rooms in enumerate(FLOORS) for room in rooms}

# Neighbours on one floor that may be seen from another, one way only.
SIDEWAYS = {
    ("data", "images"): "one reader of picture files for training and running",
    ("data", "preprocess"): "training lays pictures on the canvas exactly as running does",
    ("models", "ops"): "the decoder calls the native deformable attention",
    ("export", "runtime"): "the parity gate runs the graph through the backend that users will use",
    ("doctor", "bench"): "the report names the processor and its clock as the bench does",
    ("inspect", "estimate"): "what a device can do at most, and the work of a graph, are counted once",
    ("inspect", "evaluation"): "its figures and colours are those of an evaluation",
    ("estimate", "evaluation"): "its figures and colours are those of an evaluation",
    ("explain", "evaluation"): "its figures, colours and progress bar are those of an evaluation",
    ("demo", "evaluation"): "the demo prints AP against the known truth",
    ("demo", "bench"): "the demo prints the same stage times as the bench",
}

# Arrows that go up, or into training, on purpose: (room, module) and why.
DELIBERATE = {
    (
        "detector",
        "detrx.live.pipeline",
    ): "Detector.stream is the public door to the sources; it opens them at use",
    (
        "export",
        "detrx.evaluation.run",
    ): "an export in lower precision is refused by the AP that evaluation prints, and by no other number",
    ("live", "detrx.data.synthetic"): "test://shapes is a camera that looks at the generated scenes",
}

# Modules that users without torch import: Python 3.8, numpy, nothing heavy until it is used.
# What they import in turn belongs to that half too.
RUNTIME_HALF = (
    "__init__", "errors", "types", "native", "images", "preprocess", "detector", "draw", "bench", "doctor", "demo",
    "runtime/*", "live/*",
    "data/catalog", "data/synthetic", "evaluation/coco", "estimate/*", "inspect/*",
    "evaluation/tracking", "evaluation/track_files",
    "__main__", "cli/main", "cli/detect", "cli/webcam", "cli/bench", "cli/doctor", "cli/demo", "cli/estimate",
    "cli/inspect", "cli/tracks",
)  # fmt: skip
HEAVY = {
    "cv2", "faster_coco_eval", "matplotlib", "onnx", "onnxruntime", "pandas", "PIL", "pycocotools", "pycuda",
    "safetensors", "scipy", "tensorrt", "timm", "torch", "torchvision", "transformers",
}  # fmt: skip

# Libraries that only some rooms may name.
ONLY_IN = {
    "detrx._C": r"native\.py",
    "tensorrt": r"runtime/tensorrt\w*\.py|export/engine\.py",
    "tensorrt_rtx": r"runtime/tensorrt\w*\.py|export/engine\.py",
    "pycuda": r"runtime/tensorrt\w*\.py|export/engine\.py",
    "cv2": r"(live|data)/\w+\.py|(draw|preprocess|images)\.py",
    "transformers": r"(?!)",
    "pytest": r"(?!)",
}

# What answers to nobody: operators are tested against them.
REFERENCES = {"ops/reference.py", "ops/loss_reference.py"}

# The runtime half and what it must not know, however far down that lies.
UNKNOWN_TO_RUNNING = {"losses", "train", "data"}
RUNNING = {"runtime", "live", "detector"}
MAY_INCLUDE = {
    "core": {"core"},
    "cpu": {"core", "cpu"},
    "cuda": {"core", "cuda"},
    "trt": {"core", "cuda", "trt"},
    "bindings": {"core", "cpu", "cuda", "trt", "bindings"},
    "tests": {"core", "cpu", "tests"},
}
SYSTEM_ONLY_IN = {"pybind11/": {"bindings"}, "Nv": {"trt"}, "torch/": set(), "ATen/": set(), "c10/": set()}

FUNCTION_LINES = 60
FILE_LINES = 450
BAD_NAMES = {"utils", "util", "misc", "helpers", "helper", "core", "common", "registry"}
BAD_WORDS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.*])/(wor" + r"k|roo" + r"t|hom" + r"e|Use" + r"rs)/\w")

IMPORTERS = {"importlib.import_module", "import_module", "__import__"}


@dataclass(frozen=True)
class Import:
    """One import statement, or import_module with a fixed name."""

    module: str
    """The dotted name in full; of ``from a import b`` both ``a`` and ``a.b`` are listed."""
    line: int
    at_load: bool
    """Whether it runs when the file is imported: not in a function, not under TYPE_CHECKING."""


def python_files(root: Path, *folders: str) -> Iterator[Path]:
    for folder in folders or ("python/detrx", "tests", "benchmarks", "scripts", "examples"):
        yield from sorted(path for path in (root / folder).rglob("*.py") if "__pycache__" not in path.parts)


def native_files(root: Path) -> Iterator[Path]:
    yield from sorted((root / "csrc").rglob("*.[ch]*"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def modules_named(node: ast.AST, package: str) -> list[str]:
    """The modules that one statement or call imports, in full."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        return [base, *(f"{base}.{alias.name}" for alias in node.names)]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTERS:
        return [str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant)]
    return []


def imports(path: Path, *, package: str = "detrx") -> Iterator[Import]:
    """All imports of a file, wherever they stand."""

    def walk(node: ast.AST, at_load: bool) -> Iterator[Import]:
        for module in modules_named(node, package):
            yield Import(module, getattr(node, "lineno", 0), at_load)
        for child in ast.iter_child_nodes(node):
            deferred = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from walk(child, at_load and not deferred and not is_type_checking(child))

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), True)


def package_imports(root: Path) -> Iterator[tuple[Path, Import]]:
    """(path below python/detrx, import) of the whole package."""
    base = root / "python" / "detrx"
    for path in python_files(root, "python/detrx"):
        inside = path.relative_to(base)
        for found in imports(path, package=".".join(["detrx", *inside.parts[:-1]])):
            yield inside, found


def room_of_file(inside: Path) -> str:
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def room_of_module(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "detrx" and len(parts) > 1 else None


def deliberate(room: str, module: str) -> bool:
    """Whether DELIBERATE excuses it; the package on the way to an excused module is excused too."""
    names = [name for who, name in DELIBERATE if who == room]
    return any(f"{module}.".startswith(f"{name}.") or name.startswith(f"{module}.") for name in names)


def check_floors(root: Path) -> list[str]:
    """An import looks down, or to a neighbour that SIDEWAYS names."""
    complaints = []
    for inside, found in package_imports(root):
        here, there = room_of_file(inside), room_of_module(found.module)
        if here == "__init__" or there is None or here == there or there not in HEIGHT:
            continue
        if here not in HEIGHT:
            complaints.append(f"{inside}: the room {here!r} stands on no floor")
        elif (
            HEIGHT[there] >= HEIGHT[here]
            and (here, there) not in SIDEWAYS
            and not deliberate(here, found.module)
        ):
            complaints.append(f"{inside}:{found.line} {here} must not import {found.module}")
    return complaints


def check_rooms(root: Path) -> list[str]:
    """Every file of the package stands on a floor."""
    base = root / "python" / "detrx"
    rooms = {room_of_file(path.relative_to(base)) for path in python_files(root, "python/detrx")}
    return [f"{room}: stands on no floor" for room in sorted(rooms - set(HEIGHT) - {"__init__"})]


def runtime_half(root: Path) -> list[Path]:
    """The files of RUNTIME_HALF and all that they import of detrx when loaded."""
    base = root / "python" / "detrx"
    waiting = [path for pattern in RUNTIME_HALF for path in base.glob(f"{pattern}.py")]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        names = [one.module for one in imports(path) if one.at_load and one.module.startswith("detrx.")]
        places = [base.joinpath(*name.split(".")[1:]) for name in names]
        candidates = [place.with_suffix(".py") for place in places] + [
            place / "__init__.py" for place in places
        ]
        waiting += [candidate for candidate in candidates if candidate.is_file()]
    return sorted(seen)


def check_runtime_half(root: Path) -> list[str]:
    """The runtime half loads nothing heavy and parses on Python 3.8."""
    complaints = []
    for path in runtime_half(root):
        inside = path.relative_to(root)
        heavy = [one for one in imports(path) if one.at_load and one.module.split(".")[0] in HEAVY]
        complaints += [f"{inside}:{one.line} imports {one.module} when loaded" for one in heavy]
        try:
            ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
        except SyntaxError as error:
            complaints.append(f"{inside}:{error.lineno} is no Python 3.8: {error.msg}")
    return complaints


def check_libraries(root: Path) -> list[str]:
    """Some libraries are named in some files only."""
    complaints = []
    for inside, found in package_imports(root):
        for library, allowed in ONLY_IN.items():
            named = found.module == library or found.module.startswith(f"{library}.")
            if named and not re.fullmatch(allowed, inside.as_posix()):
                complaints.append(f"{inside}:{found.line} must not import {library}")
    return complaints


def check_running_knows_no_training(root: Path) -> list[str]:
    complaints = []
    for inside, found in package_imports(root):
        room = room_of_file(inside)
        unknown = room in RUNNING and room_of_module(found.module) in UNKNOWN_TO_RUNNING
        if unknown and not deliberate(room, found.module):
            complaints.append(f"{inside}:{found.line} must not know {found.module}")
    return complaints


def check_reference_stands_alone(root: Path) -> list[str]:
    return [
        f"{inside}:{found.line} must not import {found.module}"
        for inside, found in package_imports(root)
        if inside.as_posix() in REFERENCES and found.module.split(".")[0] == "detrx"
    ]


def check_native_includes(root: Path) -> list[str]:
    """bindings | trt | cuda, cpu | core; pybind11 only in bindings, TensorRT only in trt, torch nowhere."""
    complaints = []
    for path in native_files(root):
        inside = path.relative_to(root / "csrc")
        room, text = inside.parts[0], path.read_text(encoding="utf-8")
        own = {name.split("/")[0] for name in re.findall(r'#include "([^"]+)"', text)}
        complaints += [
            f"{inside} must not include {name}/" for name in sorted(own - MAY_INCLUDE.get(room, set()))
        ]
        for name in re.findall(r"#include [<\"]([^>\"]+)[>\"]", text):
            rooms = [rooms for prefix, rooms in SYSTEM_ONLY_IN.items() if name.startswith(prefix)]
            complaints += [f"{inside} must not include {name}" for allowed in rooms if room not in allowed]
    return complaints


def check_names(root: Path) -> list[str]:
    """A file is named for what it holds; the C++ folder core is a floor, not a file."""
    files = [*python_files(root), *native_files(root)]
    return [f"{path.relative_to(root)}: says nothing as a name" for path in files if path.stem in BAD_NAMES]


def check_star_imports(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{node.lineno} star import"
        for path in python_files(root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]


def check_prints(root: Path) -> list[str]:
    """The library returns; the command line prints."""
    return [
        f"{path.relative_to(root)}:{node.lineno} prints"
        for path in python_files(root, "python/detrx")
        if "cli" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def check_swallowed_errors(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{node.lineno} swallows an error"
        for path in python_files(root)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or all(isinstance(line, ast.Pass) for line in node.body))
    ]


def check_lengths(root: Path) -> list[str]:
    """Long functions and files are two things."""
    complaints = []
    for path in [*python_files(root), *native_files(root)]:
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > FILE_LINES:
            complaints.append(f"{path.relative_to(root)}: {lines} lines, at most {FILE_LINES}")
    for path in python_files(root):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    complaints.append(f"{path.relative_to(root)}:{node.lineno} {node.name}: {lines} lines")
    return complaints


def check_words(root: Path) -> list[str]:
    """No work left in words, no path of somebody's machine."""
    documents = sorted((root / "docs").rglob("*.md")) + sorted(root.glob("*.md"))
    complaints = []
    for path in [*python_files(root), *native_files(root), *documents]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if BAD_WORDS.search(line) or MACHINE_PATHS.search(line):
                complaints.append(f"{path.relative_to(root)}:{number} {line.strip()[:80]}")
    return complaints


Check = Callable[[Path], "list[str]"]

# Each check, and a file that it must complain about.
CHECKS: tuple[tuple[Check, str, str], ...] = (
    (check_floors, "python/detrx/data/bad.py", "def f():\n    from detrx.train import run\n"),
    (check_floors, "python/detrx/images.py", "import detrx.data.coco\n"),
    (check_floors, "python/detrx/runtime/bad.py", "from ..live import loop\n"),
    (check_rooms, "python/detrx/attic.py", ""),
    (check_runtime_half, "python/detrx/detector.py", "import torch\n"),
    (check_runtime_half, "python/detrx/live/bad.py", "match 1:\n    case _:\n        x = 1\n"),
    (check_runtime_half, "python/detrx/__init__.py", "import timm\n"),
    (check_libraries, "python/detrx/ops/bad.py", "from detrx import _C\n"),
    (check_libraries, "python/detrx/doctor.py", "import importlib\nimportlib.import_module('cv2')\n"),
    (check_running_knows_no_training, "python/detrx/runtime/bad.py", "from detrx.data import coco\n"),
    (check_running_knows_no_training, "python/detrx/live/bad.py", "from detrx.data import loader\n"),
    (check_reference_stands_alone, "python/detrx/ops/reference.py", "from detrx import errors\n"),
    (check_reference_stands_alone, "python/detrx/ops/loss_reference.py", "from ..boxes import area\n"),
    (check_native_includes, "csrc/cpu/bad.cpp", '#include "cuda/assign.h"\n'),
    (check_native_includes, "csrc/cuda/bad.cu", "#include <torch/extension.h>\n"),
    (check_names, "python/detrx/data/utils.py", ""),
    (check_star_imports, "examples/bad.py", "from detrx import *\n"),
    (check_prints, "python/detrx/train/bad.py", "print('hello')\n"),
    (check_swallowed_errors, "tests/bad.py", "try:\n    x = 1\nexcept OSError:\n    pass\n"),
    (check_lengths, "scripts/bad.py", "def f():\n" + "    x = 1\n" * 60),
    (check_lengths, "csrc/core/bad.h", "\n" * 451),
    (check_words, "csrc/cpu/bad.cpp", "// TO" + "DO: later\n"),
    (check_words, "docs/guides/bad.md", "see /hom" + "e/me/data\n"),
)


@pytest.mark.parametrize("check", dict.fromkeys(row[0] for row in CHECKS), ids=lambda check: check.__name__)
def test_the_house_stands(check: Check) -> None:
    assert check(ROOT) == []


@pytest.mark.parametrize(("check", "name", "text"), CHECKS, ids=[f"{c.__name__}-{n}" for c, n, _ in CHECKS])
def test_the_check_sees(check: Check, name: str, text: str, tmp_path: Path) -> None:
    bad = tmp_path / name
    bad.parent.mkdir(parents=True)
    bad.write_text(text, encoding="utf-8")
    assert len(check(tmp_path)) >= 1


def test_allowed_imports_are_let_through(tmp_path: Path) -> None:
    source = tmp_path / "python/detrx/live/source.py"
    source.parent.mkdir(parents=True)
    source.write_text("def f():\n    import cv2\n    from detrx.data.synthetic import Scenes\n")
    for check in dict.fromkeys(check for check, _, _ in CHECKS):
        assert check(tmp_path) == []


def test_no_exception_is_stale() -> None:
    """An exception that nobody needs any more must go."""
    seen = [(room_of_file(inside), found.module) for inside, found in package_imports(ROOT)]
    rooms = {(here, room_of_module(module)) for here, module in seen}
    assert [pair for pair in SIDEWAYS if pair not in rooms] == []
    assert [(room, name) for room, name in DELIBERATE if (room, name) not in seen] == []


def run_python(code: str) -> str:
    """Run code in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_runtime_half_loads_without_heavy_libraries() -> None:
    base = ROOT / "python" / "detrx"
    names = [
        ".".join(["detrx", *path.relative_to(base).with_suffix("").parts]) for path in runtime_half(ROOT)
    ]
    names = [name.removesuffix(".__init__") for name in names]
    loaded = run_python(
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    )
    assert len(names) > 5
    assert loaded.split() == []


def test_import_takes_less_than_0_3_seconds() -> None:
    code = "import time; start = time.perf_counter(); import detrx; print(time.perf_counter() - start)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.3
