from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detrx.cli import eval as command
from detrx.data.catalog import open_dataset
from detrx.data.coco import Dataset
from detrx.data.synthetic import CLASS_NAMES, write_coco
from detrx.errors import ConfigError, DataError
from detrx.evaluation import run as module
from detrx.evaluation.coco import Prediction, score_files
from detrx.evaluation.config import EvalConfig
from detrx.evaluation.plots import draw_worst
from detrx.evaluation.run import ModelBackend, evaluate, evaluate_backend, write_report
from detrx.export.config import ExportConfig
from detrx.export.engine import EngineSettings
from detrx.export.run import export
from detrx.preprocess import plan
from detrx.tensors import Outputs
from detrx.types import Detections, ModelInfo, Raw

CANVAS = (64, 96)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_coco(folder, train=1, val=5, size=(120, 160), seed=3)
    return folder


@pytest.fixture(scope="module")
def dataset(root: Path) -> Dataset:
    return open_dataset(root, split="val")


class Oracle:
    """Answers with the truth on the canvas, in the order of the data set; it may number the classes its own way."""

    description = "oracle"

    def __init__(
        self, dataset: Dataset, *, batch: int | None = 1, names: tuple[str, ...] | None = None
    ) -> None:
        self.dataset, self.batch, self.calls = dataset, batch, []
        self.names = names or dataset.names
        self.info = ModelInfo("oracle", self.names, tuple(range(len(self.names))), CANVAS)
        self.closed = False
        self.next = 0

    def infer(self, pixels: np.ndarray) -> Raw:
        self.calls.append(pixels.shape)
        answers = [self._one(self.next + i) for i in range(len(pixels))]
        self.next += len(pixels)
        return Raw(*(np.stack(part) for part in zip(*answers)))

    def _one(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scores, labels = np.full(20, 0.01, np.float32), np.zeros(20, np.int64)
        boxes = np.zeros((20, 4), np.float32)
        record = self.dataset.images[min(index, len(self.dataset.images) - 1)]
        n = len(record.labels)
        scores[:n] = np.linspace(0.9, 0.8, n)
        labels[:n] = [self.names.index(self.dataset.names[k]) for k in record.labels]
        boxes[:n] = plan((record.height, record.width), canvas=CANVAS).apply(record.boxes)
        return scores, labels, boxes

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("batch", [1, 2, None])
def test_boxes_come_back_through_the_letterbox(dataset: Dataset, batch: int | None) -> None:
    told = []
    backend = Oracle(dataset, batch=batch)
    metrics, predictions = evaluate_backend(
        backend, dataset, batch=3, progress=lambda done, total: told.append((done, total))
    )
    assert metrics.ap == pytest.approx(1.0, abs=1e-3)
    assert [one.image_id for one in predictions] == [record.id for record in dataset.images]
    assert {shape[0] for shape in backend.calls} == {batch or 3}
    assert told[-1] == (5, 5)


def test_classes_are_matched_by_name(dataset: Dataset) -> None:
    turned = Oracle(dataset, names=tuple(reversed(dataset.names)))
    assert evaluate_backend(turned, dataset)[0].ap == pytest.approx(1.0, abs=1e-3)


def test_other_classes_are_an_error_that_lists_both(dataset: Dataset) -> None:
    with pytest.raises(DataError, match=f"cat, dog.*{CLASS_NAMES[0]}"):
        evaluate_backend(Oracle(dataset, names=("cat", "dog")), dataset)


def test_a_limit_scores_the_first_images_alone(dataset: Dataset) -> None:
    metrics, predictions = evaluate_backend(Oracle(dataset), dataset, limit=2)
    assert (metrics.counts["images"], len(predictions)) == (2, 2)
    assert metrics.ap == pytest.approx(1.0, abs=1e-3)


def test_evaluate_writes_a_report_and_closes(
    root: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Oracle(dataset)
    monkeypatch.setattr(module, "open_backend", lambda *_, **__: backend)
    monkeypatch.setattr(module, "find_model", Path)
    metrics = evaluate("a.onnx", data=root, split="val", out=tmp_path / "out", progress=True)
    assert backend.closed
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["ap"] == metrics.ap
    for name in ("pr_curve", "thresholds", "confusion", "worst"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes()[:8] == PNG
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert 'src="http' not in page
    assert all(name in page for name in dataset.names)
    again = score_files(dataset.annotation_file, tmp_path / "out" / "predictions.json")
    assert again.ap == pytest.approx(metrics.ap, abs=1e-3)


def test_a_report_of_errors_shows_them(dataset: Dataset, tmp_path: Path) -> None:
    metrics, predictions = evaluate_backend(Oracle(dataset), dataset)
    wrong = [Prediction(p.image_id, p.detections[len(p.detections) // 2 :]) for p in predictions]
    path = write_report(tmp_path, metrics, wrong, dataset, title="<b> & more")
    assert "&lt;b&gt; &amp; more" in path.read_text()
    assert (tmp_path / "worst.png").stat().st_size > 20_000


def test_a_report_of_nothing(dataset: Dataset, tmp_path: Path) -> None:
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    none = [Prediction(record.id, empty) for record in dataset.images]
    metrics = evaluate_backend(Oracle(dataset), dataset)[0]
    assert write_report(tmp_path, metrics, none, dataset, title="nothing").exists()
    assert draw_worst(dataset, none, [], 0.5).texts[0].get_text() == "No image has an error."


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0, 2.0]))

    def forward(self, pixels: torch.Tensor) -> Outputs:
        assert not self.training
        boxes = torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(1, len(pixels), 3, 4)
        return Outputs(self.bias.expand(1, len(pixels), 3, 2), boxes)


def test_a_live_model_is_a_backend_and_stays_in_training() -> None:
    model = _Model().train()
    raw = ModelBackend(model, ModelInfo("live", ("a", "b"), (1, 2), CANVAS), top=4).infer(
        np.zeros((2, 3, *CANVAS), np.float32)
    )
    assert model.training
    assert raw.labels[0].tolist()[:3] == [1, 1, 1]
    np.testing.assert_allclose(raw.boxes[0, 0], [0.4, 0.3, 0.6, 0.7], atol=1e-6)
    assert raw.scores.shape == (2, 4)


@pytest.mark.parametrize("setting", [{"batch": 0}, {"limit": 0}])
def test_settings_out_of_range(root: Path, setting: dict) -> None:
    with pytest.raises(ConfigError, match="must be 1 or more, got 0"):
        evaluate("a.onnx", data=root, **setting)


ENGINE = {"target": "tensorrt", "batch": "batches"}
"""What the command calls two settings of an engine, which are a class of their own in Python."""


@pytest.mark.parametrize(
    ("function", "config", "more"),
    [
        (evaluate, EvalConfig, {"panoptic_threshold": 0.85}),
        (
            export,
            ExportConfig,
            {ENGINE.get(k, k): v for k, v in dataclasses.asdict(EngineSettings()).items()},
        ),
    ],
    ids=["evaluate", "export"],
)
def test_the_command_has_the_function_s_names_and_defaults(
    function: object, config: type, more: dict[str, object]
) -> None:
    takes = {
        name: None if p.default is inspect.Parameter.empty else p.default
        for name, p in inspect.signature(function).parameters.items()
        if name not in {"engine", "progress"} - {f.name for f in dataclasses.fields(config)}
    }
    has = {
        f.name: None if f.default in (dataclasses.MISSING, ()) else f.default
        for f in dataclasses.fields(config)
    }
    assert has == takes | {name: value or None for name, value in more.items()}


def test_scoring_imports_no_torch() -> None:
    code = "import sys, detrx.evaluation.coco, detrx.evaluation.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_command_prints_the_table(
    root: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "open_backend", lambda *_, **__: Oracle(dataset))
    monkeypatch.setattr(module, "find_model", Path)
    assert command.run(["a.onnx", "--data", str(root), "--split", "val", "--limit", "3"]) == 0
    text = capsys.readouterr().out
    assert "1.0000" in text
    assert "3 images" in text
    assert all(name in text for name in dataset.names)
