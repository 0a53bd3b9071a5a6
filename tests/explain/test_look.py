"""What is chosen to be explained, and where it lies in the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from detrx import Detector
from detrx.errors import ConfigError
from detrx.explain.look import Asked, AttentionMaps, Sampling, look, open_watched

Photo = NDArray[np.uint8]


@pytest.mark.parametrize("family", ["detr", "rt"])
def test_the_best_are_the_detectors(family: str, photo: Photo, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(family)
    seen = look(open_watched(folder, device="cpu"), photo, name="x", asked=Asked(threshold=0.0, most=3))
    best = Detector(folder, device="cpu", threshold=0.0).predict(photo)
    assert len(seen.found) == 3
    np.testing.assert_allclose(seen.found.scores[0], best.scores[0], atol=1e-5)
    np.testing.assert_allclose(seen.found.boxes[0], best.boxes[0], atol=1e-2)
    assert seen.found.names[0] == best.names[0]
    assert len(set(seen.queries.tolist())) == 3


def test_none_certain_enough_shows_the_best_five(rt: Path, photo: Photo) -> None:
    seen = look(open_watched(rt, device="cpu"), photo, name="x", asked=Asked(threshold=1.0))
    assert (len(seen.found), seen.above) == (5, 0)


@pytest.mark.parametrize("family", ["detr", "rt"])
def test_named_queries_are_shown_whatever_they_score(
    family: str, photo: Photo, request: pytest.FixtureRequest
) -> None:
    watched = open_watched(request.getfixturevalue(family), device="cpu")
    seen = look(watched, photo, name="x", asked=Asked(threshold=1.0, queries=(6, 2)))
    assert sorted(seen.queries.tolist()) == [2, 6]
    with pytest.raises(ConfigError, match=r"queries must be from 0 to \d+, got 90"):
        look(watched, photo, name="x", asked=Asked(queries=(2, 90)))


def test_maps_cover_the_canvas_and_padding_gets_nothing(detr: Path, photo: Photo) -> None:
    asked = Asked(points=((0, 0), (119, 49)))
    seen = look(open_watched(detr, device="cpu"), photo, name="x", asked=asked).seen
    assert isinstance(seen, AttentionMaps)
    assert seen.encoder.shape == (2, 4, 2, 3)
    np.testing.assert_allclose(seen.encoder.sum((-1, -2)), 1, atol=1e-5)
    np.testing.assert_allclose(seen.decoder.sum((-1, -2)), 1, atol=1e-5)
    # 120 x 50 pixels lie on the upper 40 rows of a 64 x 96 canvas, 0.8 canvas pixels each.
    np.testing.assert_allclose(seen.extent, (0, 120, 80, 0), atol=1e-4)
    assert not np.array_equal(seen.encoder[0], seen.encoder[1])


def test_a_point_is_the_cell_that_it_lies_in(detr: Path, photo: Photo) -> None:
    """Cells are 32 canvas pixels wide, 40 of the picture."""
    points = ((39.0, 1.0), (0.0, 39.0), (41.0, 1.0))
    seen = look(open_watched(detr, device="cpu"), photo, name="x", asked=Asked(points=points)).seen
    assert isinstance(seen, AttentionMaps)
    np.testing.assert_array_equal(seen.encoder[0], seen.encoder[1])
    assert not np.array_equal(seen.encoder[0], seen.encoder[2])


@pytest.mark.parametrize("point", [(120.0, 3.0), (3.0, 50.0), (-1.0, 3.0), (float("nan"), 3.0)])
def test_a_point_outside_is_refused(detr: Path, photo: Photo, point: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"must lie in x\.jpg, 120 pixels wide and 50 high"):
        look(open_watched(detr, device="cpu"), photo, name="x.jpg", asked=Asked(points=(point,)))


def test_points_are_for_encoders_that_attend(rt: Path, photo: Photo) -> None:
    with pytest.raises(ConfigError, match="leave --points out"):
        look(open_watched(rt, device="cpu"), photo, name="x", asked=Asked(points=((1, 1),)))


def test_shares_are_counted_by_level_and_box() -> None:
    locations = np.array([[[[[5, 5], [50, 5], [5, 9], [11, 9]]]]], np.float32)  # one layer, detection, head
    weights = np.array([[[[0.1, 0.2, 0.3, 0.4]]]], np.float32)
    seen = Sampling(locations, weights, np.array([0, 0, 1, 1]), (8, 16))
    shares = seen.shares(np.array([[0, 0, 10, 10]], np.float32))
    np.testing.assert_allclose(shares, [[[[0.1, 0.2], [0.3, 0.4]]]])


def test_sampling_of_every_layer_adds_up(rt: Path, photo: Photo) -> None:
    found = look(open_watched(rt, device="cpu"), photo, name="x", asked=Asked(threshold=0.0, most=2))
    assert isinstance(found.seen, Sampling)
    assert found.seen.weights.shape == (2, 2, 8, 12)
    assert found.seen.strides == (16, 32)
    shares = found.seen.shares(found.found.boxes)
    np.testing.assert_allclose(shares.sum((-1, -2)), 1, atol=1e-5)


def test_a_graph_is_refused_with_what_to_type(tmp_path: Path) -> None:
    graph = tmp_path / "best.onnx"
    graph.write_bytes(b"\x08\x08")
    with pytest.raises(
        ConfigError, match=r"must be weights .*best.onnx.*detrx explain RUN_FOLDER/best.safetensors"
    ):
        open_watched(graph)
    with pytest.raises(ConfigError, match="must be weights"):
        open_watched("demo")
    with pytest.raises(ConfigError, match="device must be one of"):
        open_watched(graph, device="tpu")
