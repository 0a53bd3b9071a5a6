"""Training pictures: pixels and boxes move together, and agree with torchvision and the letterbox."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from detrx.data import geometry
from detrx.data.augment import AugmentConfig
from detrx.data.synthetic import Scenes
from detrx.data.transforms import TrainTransform, draw_colour, normalise, recolour, to_sample, warp
from detrx.errors import ConfigError
from detrx.preprocess import letterbox
from detrx.tensors import Sample

pytest.importorskip("cv2")
v2 = pytest.importorskip("torchvision.transforms.v2")
tv_tensors = pytest.importorskip("torchvision.tv_tensors")

CANVAS = (96, 128)


def scene(seed: int) -> Sample:
    return to_sample(*Scenes(size=(120, 150), seed=seed).frame(0))


def marked(seed: int) -> Sample:
    """A black picture with one white rectangle, and its box."""
    rng = np.random.default_rng(seed)
    image = np.zeros((120, 150, 3), np.uint8)
    x, y, w, h = (int(v) for v in (rng.integers(5, 80), rng.integers(5, 60), *rng.integers(25, 60, 2)))
    image[y : y + h, x : x + w] = 255
    return to_sample(image, np.array([[x, y, x + w, y + h]], np.float32), np.array([2]))


def identity(seed: int) -> TrainTransform:
    return TrainTransform(CANVAS, AugmentConfig.off(), mean=(0, 0, 0), std=(1, 1, 1))


@pytest.mark.parametrize("seed", range(30))
def test_the_box_stays_on_the_object(seed):
    config = AugmentConfig(vflip=0.5, rotate90=0.5, crop=0.4, colour=0, mosaic=0, mixup=0, min_visible=0.1)
    transform = TrainTransform(CANVAS, config, mean=(0, 0, 0), std=(1, 1, 1))
    rng = np.random.default_rng(seed)
    found = transform(marked(seed), rng=rng, companion=marked)
    white = found.pixels[0].numpy() > 0.75
    assert len(found.labels) == 1
    rows, columns = np.nonzero(white)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    cx, cy, w, h = found.boxes[0].numpy() * [128, 96, 128, 96]
    np.testing.assert_allclose(seen, [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], atol=1.6)


def test_a_mosaic_has_four_pictures_and_each_box_on_its_object():
    config = AugmentConfig(hflip=0, colour=0, mosaic=1, mixup=0, mosaic_scale=(0.4, 0.5), aspect=0)
    transform = TrainTransform(CANVAS, config, mean=(0, 0, 0), std=(1, 1, 1))
    found = transform(marked(0), rng=np.random.default_rng(4), companion=lambda drawn: marked(drawn % 50))
    assert len(found.labels) >= 3
    for cx, cy, _, _ in found.boxes.tolist():
        assert found.pixels[0, int(cy * 96), int(cx * 128)] > 0.9


def test_mixup_keeps_the_boxes_of_both():
    config = AugmentConfig(jitter=0, colour=0, mosaic=0, mixup=1)
    transform = TrainTransform(CANVAS, config)
    found = transform(marked(0), rng=np.random.default_rng(0), companion=lambda _: marked(1))
    assert len(found.labels) == 2
    weak = transform(marked(0), rng=np.random.default_rng(0), companion=lambda _: marked(1), strong=False)
    assert len(weak.labels) == 1


def test_the_plain_path_gives_the_pixels_and_boxes_of_running():
    sample = scene(3)
    transform = TrainTransform(CANVAS, AugmentConfig.off())
    found = transform(sample, rng=np.random.default_rng(0), companion=scene)
    image = sample.image.permute(1, 2, 0).numpy()
    pixels, box = letterbox(image, canvas=CANVAS)
    np.testing.assert_allclose(found.pixels.numpy(), pixels, atol=1e-5)
    corners = box.apply(sample.boxes.numpy())
    centres = np.concatenate(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), 1)
    np.testing.assert_allclose(found.boxes.numpy(), centres, atol=1e-6)


def test_a_warp_without_scale_copies_pixels_exactly():
    image = Scenes(size=(60, 80), seed=1).frame(0)[0]
    out = np.zeros((60, 80, 3), np.uint8)
    warp(image, geometry.place((1, 1), (0, 0)), out)
    np.testing.assert_array_equal(out, image)
    warp(image, geometry.hflip(80), out)
    np.testing.assert_array_equal(out, image[:, ::-1])
    turned = np.zeros((80, 60, 3), np.uint8)
    warp(image, geometry.turn(60, clockwise=True), turned)
    np.testing.assert_array_equal(turned, np.rot90(image, -1))


def test_flips_agree_with_torchvision():
    sample = scene(2)
    flipped = geometry.move_boxes(sample.boxes.numpy(), geometry.hflip(150))
    corners = tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=(120, 150))
    expected = v2.functional.horizontal_flip(corners)
    np.testing.assert_allclose(flipped, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(("name", "value"), [("brightness", 0.3), ("saturation", 0.4)])
def test_colour_agrees_with_torchvision(name, value):
    image = Scenes(size=(60, 80), seed=1).frame(0)[0]
    off = dataclasses.replace(AugmentConfig(), brightness=0, contrast=0, saturation=0, hue=0)
    np.testing.assert_array_equal(recolour(image, draw_colour(off, np.random.default_rng(0))), image)
    config = dataclasses.replace(off, **{name: value})
    draws = np.random.default_rng(5).uniform(-1, 1, 4)
    factor = 1 + value * draws[("brightness", "contrast", "saturation").index(name)]
    found = recolour(image, draw_colour(config, np.random.default_rng(5)))
    adjust = getattr(v2.functional, f"adjust_{name}")
    expected = adjust(torch.from_numpy(image).permute(2, 0, 1), factor).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found.astype(int), expected, atol=2)


def test_hue_keeps_grey_grey():
    grey = np.repeat(np.arange(0, 256, 5, dtype=np.uint8)[:, None, None], 3, 2)
    config = AugmentConfig(brightness=0, contrast=0, saturation=0, hue=0.5)
    found = recolour(grey, draw_colour(config, np.random.default_rng(1)))
    np.testing.assert_allclose(found.astype(int), grey, atol=1)


def test_a_torchvision_transform_takes_part():
    extra = v2.RandomVerticalFlip(p=1.0)
    plain = TrainTransform(CANVAS, AugmentConfig.off())
    flipped = TrainTransform(CANVAS, AugmentConfig.off(), extra=extra)
    rng = np.random.default_rng(0)
    a, b = (t(scene(3), rng=rng, companion=scene) for t in (plain, flipped))
    torch.testing.assert_close(b.pixels, a.pixels.flip(1))
    torch.testing.assert_close(b.boxes[:, 1], 1 - a.boxes[:, 1])
    torch.testing.assert_close(b.boxes[:, [0, 2, 3]], a.boxes[:, [0, 2, 3]])


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        (v2.ToDtype(torch.float32, scale=True), r"found torch.float32 \(3, \d+, \d+\) and boxes, labels"),
        (v2.Resize((32, 32)), r"found torch.uint8 \(3, 32, 32\)"),
        (lambda image, truth: (image, {"boxes": truth["boxes"]}), "and boxes;"),
        (lambda image, truth: image, "found Image"),
    ],
)
def test_an_extra_transform_that_answers_with_something_else_is_an_error(extra, found):
    transform = TrainTransform(CANVAS, AugmentConfig.off(), extra=extra)
    with pytest.raises(ConfigError, match=f"an extra transform must answer with.*{found}"):
        transform(scene(3), rng=np.random.default_rng(0), companion=scene)


def test_the_largest_boxes_stay_where_there_are_too_many():
    sample = scene(0)
    assert len(sample.labels) > 3
    transform = TrainTransform(CANVAS, dataclasses.replace(AugmentConfig.off(), max_boxes=3))
    found = transform(sample, rng=np.random.default_rng(0), companion=scene)
    sizes = (sample.boxes[:, 2:] - sample.boxes[:, :2]).prod(1)
    assert sorted(found.labels.tolist()) == sorted(sample.labels[sizes.argsort(descending=True)[:3]].tolist())


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (2000, 3)])
def test_odd_sizes_pass_through_everything(size):
    image = np.full((*size, 3), 90, np.uint8)
    sample = to_sample(image, np.array([[0, 0, size[1], size[0]]], np.float32), np.array([0]))
    config = AugmentConfig(crop=0.5, rotate90=0.5, vflip=0.5)
    for seed in range(20):
        found = TrainTransform(CANVAS, config)(
            sample, rng=np.random.default_rng(seed), companion=lambda _: sample
        )
        assert torch.isfinite(found.pixels).all()
        assert ((found.boxes >= 0) & (found.boxes <= 1)).all()


def test_normalise():
    image = Scenes(size=(40, 50), seed=1).frame(0)[0]
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    expected = (image / 255 - mean) / std
    found = normalise(image, mean=mean, std=std).numpy()
    np.testing.assert_allclose(found.transpose(1, 2, 0), expected, atol=1e-5)


def masked(seed: int) -> Sample:
    """Ellipses in colour, with the masks that they are."""
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(seed)
    image, masks, boxes = np.zeros((120, 150, 3), np.uint8), [], []
    for number in range(3):
        drawn = np.zeros((120, 150), np.uint8)
        centre = (25 + 48 * number, int(rng.integers(30, 90)))
        cv2.ellipse(drawn, centre, (int(rng.integers(10, 20)), int(rng.integers(10, 25))), 30, 0, 360, 1, -1)
        image[drawn > 0, number] = 255
        masks.append(drawn > 0)
        y, x = drawn.nonzero()
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
    return to_sample(image, np.array(boxes, np.float32), np.arange(3), np.array(masks))


WILD = {"vflip": 0.5, "rotate90": 0.5, "colour": 0, "scale": (0.5, 2.5), "min_visible": 0.05}


@pytest.mark.parametrize(
    "augment", [AugmentConfig.off(), AugmentConfig(**WILD), AugmentConfig(mosaic=1.0, **WILD)]
)
def test_masks_go_where_their_pixels_go(augment: AugmentConfig) -> None:
    transform = TrainTransform(CANVAS, augment, mean=(0, 0, 0), std=(1, 1, 1))
    seen = 0
    for seed in range(12):
        found = transform(
            masked(seed), rng=np.random.default_rng(seed), companion=lambda drawn: masked(drawn % 97)
        )
        assert found.masks is not None
        assert found.masks.shape == (len(found.labels), *CANVAS)
        height, width = CANVAS
        for mask, label, box in zip(found.masks, found.labels, found.boxes, strict=True):
            mine = [m for m, other in zip(found.masks, found.labels, strict=True) if other == label]
            union = torch.stack(mine).any(0)
            bright = found.pixels[label] > 0.5
            grey = (found.pixels - 114 / 255).abs().amax(0) < 0.01
            wrong = ((union != bright) & ~grey).sum()
            # An object too small to learn may have been dropped; what is kept lies where its colour is.
            assert (union & ~bright).sum() < 0.06 * union.sum() + 3
            assert augment.mosaic or wrong < 0.06 * bright.sum() + 40
            rows, columns = mask.nonzero(as_tuple=True)
            tight = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            corners = torch.cat([box[:2] - box[2:] / 2, box[:2] + box[2:] / 2]) * torch.tensor(
                [width, height] * 2
            )
            assert (tight - corners).abs().max() < 3.5
            seen += 1
    assert seen > 15


def test_a_box_that_the_canvas_cuts_is_drawn_around_what_is_left() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    mask = np.tri(100, dtype=bool)[None]  # a triangle: of its upper right corner nothing is set
    sample = to_sample(image, np.array([[0, 0, 100, 100]], np.float32), np.array([0]), mask)
    zoom = AugmentConfig(hflip=0, colour=0, scale=(2.0, 2.0), aspect=0, translate=1, min_visible=0.01)
    transform = TrainTransform((100, 100), zoom)
    shares = []
    for seed in range(10):
        found = transform(sample, rng=np.random.default_rng(seed), companion=lambda _: sample)
        assert found.masks is not None
        if len(found.labels):
            rows, columns = found.masks[0].nonzero(as_tuple=True)
            assert abs(float(found.boxes[0, 2]) * 100 - (columns.max() + 1 - columns.min())) < 0.01
            assert abs(float(found.boxes[0, 3]) * 100 - (rows.max() + 1 - rows.min())) < 0.01
            shares.append(float(found.boxes[0, 2:].prod()))
    assert min(shares) < 0.9, "somewhere the box is smaller than the canvas"


def test_masks_pass_through_torchvision() -> None:
    off = TrainTransform(CANVAS, AugmentConfig.off())
    flipped = TrainTransform(CANVAS, AugmentConfig.off(), extra=v2.RandomHorizontalFlip(p=1.0))
    a, b = (t(masked(3), rng=np.random.default_rng(0), companion=masked) for t in (off, flipped))
    assert a.masks is not None
    assert b.masks is not None
    assert torch.equal(a.masks.flip(-1), b.masks)
