from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from detrx.data.coco import read_coco
from detrx.errors import DataError
from detrx.evaluation.coco import Metrics, Prediction, score, score_files, score_results
from detrx.types import Detections

KEYS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "APs",
    "ap_medium": "APm",
    "ap_large": "APl",
    "ar_1": "AR1",
    "ar_10": "AR10",
    "ar_100": "AR100",
    "ar_small": "ARs",
    "ar_medium": "ARm",
    "ar_large": "ARl",
}


def scene(images: int = 6, each: int = 4, *, seed: int = 0, first_id: int = 1) -> dict:
    """A clean ground truth with three classes, ids with gaps."""
    random = np.random.default_rng(seed)
    truth = {
        "images": [{"id": 10 + i, "width": 640, "height": 480} for i in range(images)],
        "categories": [{"id": i, "name": n} for i, n in ((7, "disc"), (3, "ring"), (900, "star"))],
        "annotations": [],
    }
    for i in range(images):
        for _ in range(each):
            x, y = random.uniform(0, 500), random.uniform(0, 300)
            w, h = random.uniform(8, 130, 2)
            truth["annotations"].append(
                {
                    "id": first_id + len(truth["annotations"]),
                    "image_id": 10 + i,
                    "category_id": int(random.choice([7, 3, 900])),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                }
            )
    return truth


def guesses(truth: dict, *, noise: float = 4.0, extra: int = 2, seed: int = 1) -> list[dict]:
    """Results that find most objects, roughly."""
    random = np.random.default_rng(seed)
    out = []
    for a in truth["annotations"]:
        if random.random() < 0.85:
            box = np.array(a["bbox"]) + random.normal(0, noise, 4) * [1, 1, 0.3, 0.3]
            out.append(
                {
                    "image_id": a["image_id"],
                    "category_id": a["category_id"],
                    "bbox": [*box[:2], *box[2:].clip(2)],
                    "score": float(random.beta(5, 2)),
                }
            )
    for image in truth["images"]:
        for _ in range(extra):
            box = [*random.uniform(0, 300, 2), *random.uniform(10, 90, 2)]
            out.append(
                {
                    "image_id": image["id"],
                    "category_id": 7,
                    "bbox": box,
                    "score": float(random.beta(2, 5)),
                }
            )
    return out


def perfect(truth: dict) -> list[dict]:
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in truth["annotations"]
    ]


def found(
    truth: dict, image_id: int, *, names: tuple[str, ...] = (), ids: tuple[int, ...] = ()
) -> Detections:
    """The truth of an image as detections, labels in the order of the truth's ids: ring, disc, star."""
    mine = [a for a in truth["annotations"] if a["image_id"] == image_id]
    boxes = np.array([a["bbox"] for a in mine], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    order = list(ids) or [3, 7, 900]
    labels = np.array([order.index(a["category_id"]) for a in mine], np.int64)
    return Detections(boxes, np.linspace(0.9, 0.5, len(mine)).astype(np.float32), labels, names, ids)


def reference(truth: dict, results: list[dict], kind: str = "bbox") -> np.ndarray:
    """The twelve numbers by pycocotools."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluate = pytest.importorskip("pycocotools.cocoeval")
    held = coco.COCO()
    held.dataset = json.loads(json.dumps(truth))
    held.createIndex()
    run = evaluate.COCOeval(held, held.loadRes(json.loads(json.dumps(results))), kind)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats


def twelve(metrics: Metrics) -> list[float]:
    return [getattr(metrics, name) for name in KEYS]


@pytest.mark.needs("data")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_official_numbers_of_coco_fake100(kind: str, shared_data: Path) -> None:
    folder = shared_data / "coco_fake100"
    files = folder / "tests" / "dataset" / "cocoapi"
    metrics = score_files(
        files / "instances_val2014_100.json",
        files / f"instances_val2014_fake{kind}100_results.json",
        iou_type=kind,
    )
    wanted = json.loads((folder / "expected.json").read_text())[kind]
    for name, key in KEYS.items():
        assert getattr(metrics, name) == pytest.approx(wanted[key], abs=1e-12), name


@pytest.mark.needs("data")
def test_masks_of_a_data_set_score_as_the_files_do(shared_data: Path) -> None:
    """The same numbers through the strict reader and predictions with run lengths."""
    files = shared_data / "coco_fake100" / "tests" / "dataset" / "cocoapi"
    truth = read_coco(files / "instances_val2014_100.json", image_root=None, masks=True)
    results = json.loads((files / "instances_val2014_fakesegm100_results.json").read_text())
    label = {number: at for at, number in enumerate(truth.category_ids)}
    predictions = []
    for image in truth.images:
        own = [row for row in results if row["image_id"] == image.id]
        own.sort(key=lambda row: -row["score"])
        detections = Detections(
            np.tile(np.array([0, 0, 5, 5], np.float32), (len(own), 1)),
            np.array([row["score"] for row in own], np.float32),
            np.array([label[row["category_id"]] for row in own], np.int64),
            truth.names,
        )
        predictions.append(Prediction(image.id, detections, [row["segmentation"] for row in own]))
    metrics = score(truth, predictions)
    wanted = json.loads((shared_data / "coco_fake100" / "expected.json").read_text())["segm"]
    for name, key in KEYS.items():
        assert metrics.masks[name] == pytest.approx(wanted[key], abs=2e-3), name
    assert metrics.main == metrics.masks["ap"] > metrics.ap
    assert set(metrics.masks_per_class) == set(truth.names)
    without = score(truth, [dataclasses.replace(one, masks=None) for one in predictions])
    assert without.masks == {}
    assert without.main == without.ap


@pytest.mark.needs("data")
def test_the_published_numbers_of_review_metrics(shared_data: Path) -> None:
    folder = shared_data / "review_metrics"
    files = folder / "tests" / "test_coco_eval"
    metrics = score_files(
        files / "gts" / "sampled_gts_bbox_area.json", files / "dets" / "sampled_bbox_results.json"
    )
    wanted = json.loads((folder / "expected.json").read_text())["coco_bbox_sampled"]
    for name, key in KEYS.items():
        assert getattr(metrics, name) == pytest.approx(wanted[key], abs=6e-7), name


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    truth = scene(images=12, each=7, seed=seed)
    truth["annotations"][5]["iscrowd"] = 1
    results = guesses(truth, seed=seed + 9)
    assert twelve(score_results(truth, results)) == pytest.approx(list(reference(truth, results)), abs=1e-12)


@pytest.mark.parametrize("break_ids", ["from zero", "all equal", "missing", "strings"])
def test_annotation_ids_do_not_matter(break_ids: str) -> None:
    truth = scene()
    clean = score_results(truth, guesses(truth))
    for n, a in enumerate(truth["annotations"]):
        a["id"] = {"from zero": n, "all equal": 5, "missing": None, "strings": f"a{n}"}[break_ids]
        if break_ids == "missing":
            del a["id"]
    assert score_results(truth, guesses(truth)) == clean
    assert score_results(truth, perfect(truth)).ap == pytest.approx(1.0)


def test_string_image_ids_and_absent_fields() -> None:
    truth = scene()
    clean = score_results(truth, guesses(truth))
    results = guesses(truth)
    for entry in (*truth["annotations"], *results):
        entry["image_id"] = f"photo {entry['image_id']}"
    for image in truth["images"]:
        image["id"] = f"photo {image['id']}"
    for a in truth["annotations"]:
        del a["area"], a["iscrowd"]
    assert twelve(score_results(truth, results)) == pytest.approx(twelve(clean))


def test_no_detections_score_zero_and_no_truth_scores_minus_one() -> None:
    truth = scene()
    nothing = score_results(truth, [])
    assert (nothing.ap, nothing.ar_100) == (0.0, 0.0)
    assert nothing.counts["images_without_detections"] == len(truth["images"])
    truth["annotations"] = []
    assert score_results(truth, []).ap == -1.0
    assert score_results({"images": [], "annotations": [], "categories": []}, []).ap == -1.0


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        ("annotations", "bbox", [0, 0, float("nan"), 5], "annotation 1 .*finite"),
        ("annotations", "bbox", [1, 2, 3], "annotation 1 .*4 numbers"),
        ("annotations", "bbox", ["1", 2, 3, 4], "finite number"),
        ("annotations", "image_id", 99, "image_id 99.*not in the ground truth"),
        ("annotations", "category_id", None, "category_id None"),
        ("annotations", "area", float("inf"), "area of annotation 1"),
        ("images", "id", 11, "image ids must differ.*11"),
        ("categories", "id", 3, "category ids must differ"),
        ("results", "score", float("nan"), "score of result 1 must be a finite"),
        ("results", "bbox", [0, 0, float("inf"), 5], "bbox of result 1"),
        ("results", "image_id", 99, "result 1 has image_id 99"),
        ("results", "image_id", [1], "result 1 has image_id"),
        ("results", "category_id", 1, "result 1 has category_id 1"),
    ],
)
def test_what_cannot_be_scored_is_named(where: str, key: str, value: object, message: str) -> None:
    truth = scene()
    results = guesses(truth)
    (results if where == "results" else truth[where])[0][key] = value
    with pytest.raises(DataError, match=message):
        score_results(truth, results)


def test_predictions_go_to_classes_by_name_then_id_then_index() -> None:
    truth = scene()
    images = [i["id"] for i in truth["images"]]
    by_index = score(truth, [Prediction(i, found(truth, i)) for i in images])
    by_id = score(truth, [Prediction(i, found(truth, i, ids=(900, 7, 3))) for i in images])
    names = ("star", "disc", "ring")
    by_name = score(truth, [Prediction(i, found(truth, i, ids=(900, 7, 3), names=names)) for i in images])
    assert by_index.ap == by_id.ap == by_name.ap == pytest.approx(1.0)
    assert list(by_name.per_class) == ["ring", "disc", "star"]


def test_predictions_that_do_not_fit_are_refused() -> None:
    truth = scene()
    one = Prediction(10, found(truth, 10))
    with pytest.raises(DataError, match="one prediction for an image"):
        score(truth, [one, one])
    with pytest.raises(DataError, match="image 5,"):
        score(truth, [Prediction(5, one.detections)])
    with pytest.raises(DataError, match="class 'cat'"):
        score(truth, [Prediction(10, found(truth, 10, names=("cat", "cat", "cat")))])
    bad = Detections(one.detections.boxes, one.detections.scores * np.nan, one.detections.labels)
    with pytest.raises(DataError, match="detection 0 of image 10"):
        score(truth, [Prediction(10, bad)])


def test_an_absent_class_and_top() -> None:
    truth = scene()
    truth["categories"].append({"id": 1000, "name": "comet"})
    metrics = score_results(truth, perfect(truth))
    assert metrics.per_class["comet"] == (-1.0, -1.0)
    assert metrics.ap == pytest.approx(1.0)
    few = score_results(truth, perfect(truth), top=1)
    assert few.ar_100 < metrics.ar_100
    with pytest.raises(DataError, match="top must be at least 1"):
        score_results(truth, [], top=0)


def test_json_round_trip() -> None:
    truth = scene()
    metrics = score_results(truth, guesses(truth))
    assert json.loads(metrics.to_json())["ap50"] == metrics.ap50


def test_files_that_are_no_coco_files(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.json", tmp_path / "b.json"
    good.write_text(json.dumps(scene()))
    bad.write_text("[1, 2")
    with pytest.raises(DataError, match="is not JSON"):
        score_files(good, bad)
    with pytest.raises(DataError, match="cannot read"):
        score_files(good, tmp_path / "none.json")
    bad.write_text("{}")
    with pytest.raises(DataError, match="a list of results"):
        score_files(good, bad)
    with pytest.raises(DataError, match="iou_type"):
        score_results(scene(), [], iou_type="mask")
