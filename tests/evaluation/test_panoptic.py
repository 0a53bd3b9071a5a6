"""Panoptic quality: the official tool's numbers, torchmetrics' example, and what void and crowds excuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detrx import panoptic_ids
from detrx.errors import DataError
from detrx.evaluation.panoptic import Division, PanopticScore, Quality
from detrx.images import read_image

NAMES, THINGS = ("cat", "sky", "sea"), (True, False, False)


def divisions(folder: Path, document: dict, pictures: Path, labels: dict[int, int]) -> dict[int, Division]:
    return {
        one["image_id"]: Division(
            panoptic_ids.from_rgb(read_image(pictures / one["file_name"])),
            {segment["id"]: labels[segment["category_id"]] for segment in one["segments_info"]},
            tuple(segment["id"] for segment in one["segments_info"] if segment.get("iscrowd")),
        )
        for one in document["annotations"]
    }


def test_the_official_numbers(shared_data: Path) -> None:
    folder = shared_data / "panoptic_sample"
    truth = json.loads((folder / "sample_data/panoptic_examples.json").read_text())
    answers = json.loads((folder / "derived_predictions/pred.json").read_text())
    expected = json.loads((folder / "derived_predictions/expected_pq.json").read_text())
    categories = truth["categories"]
    labels = {one["id"]: i for i, one in enumerate(categories)}
    true = divisions(folder, truth, folder / "sample_data/panoptic_examples", labels)
    found = divisions(folder, answers, folder / "derived_predictions/pred", labels)
    for kind, said in (("identity", true), ("derived", found)):
        score = PanopticScore(len(labels))
        for image, division in true.items():
            score.add(division, said[image])
        metrics = score.metrics(
            names=[one["name"] for one in categories], things=[bool(one["isthing"]) for one in categories]
        )
        for group, key in ((metrics.all, "All"), (metrics.things, "Things"), (metrics.stuff, "Stuff")):
            wanted = expected[kind][key]
            assert group.classes == wanted["n"]
            np.testing.assert_allclose(
                (group.pq, group.sq, group.rq), [wanted[k] for k in ("pq", "sq", "rq")], rtol=1e-12
            )
    assert metrics.counts["images"] == len(true) == 2


def test_torchmetrics_example(shared_data: Path) -> None:
    example = json.loads((shared_data / "panoptic_sample/torchmetrics_example.json").read_text())
    places = {label: i for i, label in enumerate(example["things"] + example["stuffs"])}

    def division(pixels: list) -> Division:
        """Each pixel is (class, instance); of stuff the instance does not count."""
        pairs = np.array(pixels)[0]
        ids = (1 + 100 * pairs[..., 0] + np.where(pairs[..., 0] > 1, 0, pairs[..., 1])).astype(np.int32)
        return Division(ids, {int(i): places[(int(i) - 1) // 100] for i in np.unique(ids)})

    score = PanopticScore(len(places))
    score.add(division(example["pq"]["target"]), division(example["pq"]["preds"]))
    metrics = score.metrics(names=[str(label) for label in places], things=[True, True, False, False])
    assert metrics.all.pq == pytest.approx(example["pq"]["expected"], abs=5e-5)


def quality(truth: list, found: list, classes: dict, found_classes: dict, crowds: tuple = ()) -> dict:
    score = PanopticScore(3)
    score.add(
        Division(np.array([truth], np.int32), classes, crowds),
        Division(np.array([found], np.int32), found_classes),
    )
    return score.metrics(names=NAMES, things=THINGS).per_class


def test_half_an_overlap_is_none() -> None:
    """An IoU of exactly one half is a miss and a mistake; a little more is a match."""
    assert quality([1, 1, 0, 0], [1, 0, 0, 0], {1: 0}, {1: 0})["cat"] == Quality(0.0, 0.0, 0.0)
    found = quality([1, 1, 1, 2], [1, 1, 2, 2], {1: 0, 2: 1}, {1: 0, 2: 1})
    assert found["cat"].sq == pytest.approx(2 / 3)
    assert found["cat"].rq == 1
    assert found["sky"] == Quality(0.0, 0.0, 0.0)


def test_the_class_must_be_the_true_one() -> None:
    found = quality([1, 1], [1, 1], {1: 0}, {1: 1})
    assert found == {"cat": Quality(0, 0, 0), "sky": Quality(0, 0, 0)}


def test_void_is_left_out_of_the_union_and_excuses() -> None:
    assert quality([1, 0, 0, 0], [1, 1, 1, 1], {1: 0}, {1: 0})["cat"].pq == 1
    # Two thirds of the second segment lie on nothing: it does not count as wrong.
    assert quality([1, 1, 0, 0, 2], [1, 1, 2, 2, 2], {1: 0, 2: 1}, {1: 0, 2: 0})["cat"].rq == 1
    assert quality([1, 1, 0, 2, 2], [1, 1, 2, 2, 2], {1: 0, 2: 1}, {1: 0, 2: 0})["cat"].rq == pytest.approx(
        2 / 3
    )


def test_crowds_are_neither_found_nor_missed() -> None:
    found = quality([1, 1, 2, 2], [1, 1, 2, 2], {1: 0, 2: 0}, {1: 0, 2: 0}, crowds=(2,))
    assert found["cat"] == Quality(1.0, 1.0, 1.0)
    other = quality([1, 1, 2, 2], [1, 1, 2, 2], {1: 0, 2: 0}, {1: 0, 2: 1}, crowds=(2,))
    assert other["sky"].rq == 0


@pytest.mark.parametrize(
    ("truth", "found", "said"),
    [
        (([[1, 1]], {1: 0}), ([[1, 2]], {1: 0}), r"found segments .*\[2\]"),
        (([[1, 1]], {1: 0, 5: 1}), ([[1, 1]], {1: 0}), r"true segments .*\[5\]"),
        (([[1, 1]], {1: 0}), ([[1, 1, 1]], {1: 0}), "picture's size"),
    ],
)
def test_what_does_not_fit(truth: tuple, found: tuple, said: str) -> None:
    with pytest.raises(DataError, match=said):
        PanopticScore(3).add(*(Division(np.array(ids, np.int32), classes) for ids, classes in (truth, found)))


def test_means_are_over_the_classes_that_occur() -> None:
    score = PanopticScore(3)
    ids = np.array([[1, 1, 2, 2]], np.int32)
    score.add(Division(ids, {1: 0, 2: 1}), Division(np.array([[1, 1, 0, 0]], np.int32), {1: 0}))
    metrics = score.metrics(names=NAMES, things=THINGS)
    assert (metrics.all.pq, metrics.all.classes) == (0.5, 2)
    assert (metrics.things.pq, metrics.stuff.pq, metrics.stuff.classes) == (1.0, 0.0, 1)
    assert json.loads(metrics.to_json())["counts"] == {"images": 1, "truths": 2, "found": 1, "matched": 1}
    empty = PanopticScore(3).metrics(names=NAMES, things=THINGS)
    assert empty.all == Quality(0, 0, 0, 0)
