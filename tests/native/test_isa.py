"""Every instruction set's body answers as the widest does."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from detrx import native

SCENES = [(1, 1, 1), (3, 2, 7), (9, 33, 14), (60, 100, 91), (40, 31, 5)]
"""Targets, queries and classes: less than a vector, more than one, more targets than queries."""


def scene(targets, queries, classes):
    rng = np.random.default_rng(targets)
    logits = rng.normal(size=(2, 3, queries, classes)).astype(np.float32)
    boxes = rng.uniform(0.05, 0.5, (2, 3, queries, 4)).astype(np.float32)
    labels = rng.integers(0, classes, (3, targets))
    truths = rng.uniform(0.05, 0.5, (3, targets, 4)).astype(np.float32)
    counts = np.array([targets, targets // 2, 0], np.int32)
    return logits, boxes, labels, truths, counts


def answers(path: str) -> None:
    """Write what match, its costs and assign answer to every scene."""
    found = {}
    for shape in SCENES:
        inputs = scene(*shape)
        for softmax in (False, True):
            for dtype in (np.float32, np.float16):
                cast = [one.astype(dtype) for one in inputs[:2]]
                match, bad = np.empty((6, shape[0]), np.int32), np.empty(6, np.int32)
                cost = np.zeros((6, shape[0], shape[1]), np.float32)
                weights = [2.0, 5.0, 2.0, 0.25, 2.0 if shape[0] % 2 else 1.5]
                native.load().match(*cast, *inputs[2:], weights, softmax, match, bad, 2)
                native.load().match_cost(*cast, *inputs[2:], weights, softmax, cost)
                name = f"{shape}{softmax}{np.dtype(dtype)}"
                found[name + "match"], found[name + "cost"] = match, cost
                for layout in (cost.transpose(0, 2, 1), np.ascontiguousarray(cost.transpose(0, 2, 1))):
                    assigned = np.empty((6, shape[0]), np.int64)
                    native.load().assign(layout, np.tile(inputs[4], 2), assigned, None, 2)
                    np.testing.assert_array_equal(assigned, match)
    for size in ((50, 70), (333, 801), (1, 9)):
        image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
        for dtype in (np.float32, np.float16, np.uint8):
            found[f"{size}{np.dtype(dtype)}letterbox"] = laid(image, dtype)
    np.savez(path, **found)


def laid(image, dtype):
    out, (kinds, colours) = np.empty((3, 64, 97), dtype), (native.load().PixelFormat, native.load().Colours)
    normal = np.array([[0.02] * 3, [-2.0] * 3, [0.5] * 3], np.float32)
    native.load().letterbox(image, None, kinds.bgr, colours.bt601, (3, 5, 40, 90), normal, out, 2)
    return out


@pytest.mark.parametrize("isa", ["plain", "avx2"])
def test_narrow_bodies_answer_as_the_widest(isa, tmp_path):
    answers(str(tmp_path / "here.npz"))
    code = "import runpy, sys; runpy.run_path(sys.argv[1])['answers'](sys.argv[2])"
    there = tmp_path / "there.npz"
    environment = {**os.environ, "DETRX_ISA": isa}
    subprocess.run([sys.executable, "-c", code, __file__, str(there)], check=True, env=environment)
    wide, narrow = np.load(tmp_path / "here.npz"), np.load(there)
    assert set(wide) == set(narrow)
    for name in wide:
        np.testing.assert_allclose(wide[name], narrow[name], rtol=0, atol=2e-6, err_msg=name)
