"""The runtime half on Python 3.8 with numpy, tyro and rich alone, where a Python 3.8 is found."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy>=1.20", "tyro>=0.9", "rich>=13")
MODULES = (
    "types", "errors", "native", "images", "picture_header", "preprocess", "detector", "draw",
    "bench", "doctor", "demo", "__main__", "runtime.backend", "runtime.onnx", "runtime.torch",
    "runtime.sidecar", "runtime.tensorrt", "runtime.tensorrt_python", "runtime.probe",
    "live.frames", "live.source", "live.files", "live.camera", "live.scenes", "live.loop", "live.sink", "live.job",
    "live.track", "live.smooth", "live.zones", "live.pipeline", "live.capture", "live.health",
    "live.mjpeg", "live.gstreamer", "live.web", "live.adapters", "live.zone_plan", "live.zone_editor",
    "live.v4l2", "live.chart", "clocks",
    "cli.main", "cli.detect", "cli.webcam", "cli.bench", "cli.doctor", "cli.demo", "cli.estimate",
    "cli.inspect", "inspect.picture",
    "cli.data", "cli.eval", "cli.export", "cli.tracks", "evaluation.tracking", "evaluation.track_files",
    "data.coco", "data.panoptic", "data.catalog", "data.augment", "data.synthetic", "data.check", "data.check_page",
    "evaluation.coco", "evaluation.curves", "evaluation.plots", "evaluation.run", "train.config",
    "evaluation.panoptic", "evaluation.panoptic_page", "evaluation.panoptic_run", "runtime.panoptic",
    "live.panoptic_sink",
)  # fmt: skip

pytestmark = pytest.mark.needs("python38")


def find_python() -> str | None:
    """A Python 3.8 that starts: pyenv's, else the one in the PATH."""
    candidates = [str(path) for path in sorted(Path.home().glob(".pyenv/versions/3.8*/bin/python"))]
    on_path = shutil.which("python3.8")
    for python in [*candidates, *([on_path] if on_path else [])]:
        check = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
        )
        if check.stdout.strip() == "(3, 8)":
            return python
    return None


@pytest.fixture(scope="session")
def python38() -> str:
    """A virtual environment of it with what the runtime half depends on, kept between runs."""
    base = find_python()
    if base is None:
        pytest.skip("no Python 3.8 here")
    key = hashlib.sha256(repr((base, PACKAGES)).encode()).hexdigest()[:12]
    home = Path(os.environ.get("DETRX_TEST_CACHE", tempfile.gettempdir())) / f"detrx-py38-{key}"
    python = home / "bin" / "python"
    if not (home / "ready").is_file():
        subprocess.run([base, "-m", "venv", "--clear", str(home)], check=True, capture_output=True)
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES]
        done = subprocess.run(install, capture_output=True, text=True, timeout=110)
        if done.returncode:
            pytest.skip(f"pip cannot install numpy for Python 3.8: {done.stderr.strip()[-200:]}")
        (home / "ready").write_text("")
    return str(python)


def run(python: str, *args: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([python, *args], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_imports(python38: str) -> None:
    imports = "; ".join(f"import detrx.{name}" for name in MODULES)
    assert run(python38, "-c", f"import sys; {imports}; print(sys.version_info[:2])").strip() == "(3, 8)"


def test_import_takes_under_300_milliseconds(python38: str) -> None:
    code = "import time; start = time.perf_counter(); import detrx; print(time.perf_counter() - start)"
    assert min(float(run(python38, "-c", code)) for _ in range(3)) < 0.3


def test_boxes_there_and_back(python38: str) -> None:
    code = (
        "import numpy as np\n"
        "from detrx.preprocess import plan\n"
        "box = plan((480, 640), canvas=(320, 320))\n"
        "given = np.array([[10, 20, 600, 400], [0, 0, 640, 480]], np.float32)\n"
        "print(float(np.abs(box.undo(box.apply(given)) - given).max()))\n"
    )
    assert float(run(python38, "-c", code)) < 1e-3


def test_detections_and_model_info(python38: str) -> None:
    code = (
        "import numpy as np\n"
        "from detrx.types import Detections, ModelInfo\n"
        "found = Detections(np.zeros((1, 4), 'f4'), np.ones(1, 'f4'), np.zeros(1, 'i8'), ('a',), (7,))\n"
        "print(found.above(.5).to_coco()[0]['category_id'], *found.names)\n"
        "info = ModelInfo('m', ('a',), (7,), (64, 96))\n"
        "print(ModelInfo.from_json(info.to_json()) == info)\n"
    )
    assert run(python38, "-c", code).split() == ["7", "a", "True"]


RUN = """
import sys, types
from pathlib import Path
import numpy as np

# What the loop asks of OpenCV, which has no place in this environment.
cv2 = types.ModuleType("cv2")
cv2.INTER_LINEAR = 1
cv2.resize = lambda image, size, interpolation: np.zeros((size[1], size[0], 3), np.uint8)
cv2.split = lambda image: [image[..., c] for c in range(3)]
sys.modules["cv2"] = cv2

from detrx.detector import Detector
from detrx.live import job
from detrx.live.frames import Source
from detrx.types import Frame, ModelInfo, Raw
import detrx.detector as detector

class Backend:
    info, description, batch = ModelInfo("tiny", ("disc", "ring"), (7, 3), (64, 96)), "stub", None
    def infer(self, pixels):
        b = len(pixels)
        boxes = np.tile(np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32), (b, 1, 1))
        return Raw(np.tile(np.array([0.9, 0.6], np.float32), (b, 1)), np.tile([1, 0], (b, 1)), boxes)
    def close(self):
        self.closed = True

class Two(Source):
    def __iter__(self):
        for index in range(2):
            yield Frame(np.zeros((48, 64, 3), np.uint8), index, float(index), "two")

detector.open_backend = lambda *args, **settings: Backend()
detector.find_model = Path
job.open_source = lambda uri, **settings: Two()
with Detector("m.onnx") as found:
    small = np.zeros((9, 12, 3), np.uint8)
    print(*found.predict(small).names, len(found.predict([small] * 3)))
config = job.DetectConfig("two", model="m.onnx", out=Path(sys.argv[1]), save=("jsonl", "coco"))
print(job.detect(config).loop.objects)
"""


def test_detections_from_picture_to_file(python38: str, tmp_path: Path) -> None:
    assert run(python38, "-c", RUN, str(tmp_path)).split() == ["ring", "disc", "3", "4"]
    assert len((tmp_path / "detections.jsonl").read_text().splitlines()) == 2
    assert (tmp_path / "detections.coco.json").is_file()


@pytest.mark.parametrize("command", ["detect", "webcam", "bench", "doctor", "demo", "eval", "export"])
def test_every_command_parses(python38: str, command: str) -> None:
    assert f"detrx {command}" in run(python38, "-m", "detrx.cli.main", command, "--help")


PAGE = """
import json, urllib.request
import numpy as np
from detrx.live.web import WebPage
from detrx.types import Detections, Frame
found = Detections(np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.zeros(1, np.int64), ("disc",))
with WebPage("127.0.0.1:0", names=("disc",), threshold=0.5) as page:
    page.take(Frame(np.zeros((8, 8, 3), np.uint8), 0, 0.0), found, (0.0,) * 6)
    print(b"<title>detrx live" in urllib.request.urlopen(page.url).read())
    kind = {"Content-Type": "application/json"}
    wanted = urllib.request.Request(page.url + "settings", b'{"threshold": 0.7}', kind)
    print(json.load(urllib.request.urlopen(wanted))["threshold"])
    print(json.load(urllib.request.urlopen(page.url + "status.json"))["counts"])
"""


def test_the_page_is_served(python38: str) -> None:
    assert run(python38, "-c", PAGE).splitlines() == ["True", "0.7", "{'0': 1}"]


def test_the_doctor_runs_and_names_what_is_missing(python38: str) -> None:
    said = run(python38, "-m", "detrx.cli.main", "doctor")
    assert "3.8" in said
    assert 'type: pip install ".[cpu]"' in said
