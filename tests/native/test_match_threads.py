"""Matching called from several Python threads at once, each on several native threads, without torch."""

from __future__ import annotations

import runpy
import threading
from pathlib import Path

import numpy as np

from detrx import native

scene = runpy.run_path(str(Path(__file__).parent / "test_isa.py"))["scene"]
WEIGHTS = [2.0, 5.0, 2.0, 0.25, 2.0]


def solve(inputs, softmax, threads):
    problems, targets = inputs[0].shape[0] * inputs[0].shape[1], inputs[2].shape[1]
    match, bad = np.empty((problems, targets), np.int32), np.empty(problems, np.int32)
    total = native.load().match(*inputs, WEIGHTS, softmax, match, bad, threads)
    assert total == bad.sum()
    return match, bad


def test_many_python_threads_may_match_at_once():
    scenes = [scene(60, 300, 91), scene(90, 80, 7), scene(33, 500, 3)]
    wanted = [[solve(one, softmax, 1) for softmax in (False, True)] for one in scenes]
    wrong = []

    def work(number):
        for turn in range(8):
            which, softmax = (number + turn) % 3, bool((number + turn) % 2)
            match, bad = solve(scenes[which], softmax, 1 + (number + turn) % 4)
            if not (np.array_equal(match, wanted[which][softmax][0]) and not bad.any()):
                wrong.append((number, turn))

    calls = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert not wrong


def test_sick_costs_on_every_thread():
    logits, *others = scene(40, 300, 91)
    logits = np.tile(logits, (8, 1, 1, 1))
    boxes = np.tile(others[0], (8, 1, 1, 1))
    logits[5, 1, 7] = np.nan
    boxes[9, 0, 200, 2] = np.inf
    _, bad = solve((logits, boxes, *others[1:]), False, 3)
    assert bad.nonzero()[0].tolist() == [16, 27]
    assert bad[[16, 27]].tolist() == [20, 40]


def test_owners_and_votes():
    match = np.array([[2, -1, 0], [-1, -1, 4], [0, 2, -1]], np.int32)
    owners = np.empty((3, 5), np.int32)
    native.load().owners(match, owners)
    assert owners.tolist() == [[2, -1, 0, -1, -1], [-1, -1, -1, -1, 2], [0, -1, 1, -1, -1]]
    agreed = np.empty(5, np.int32)
    native.load().agree(owners, agreed)
    assert agreed.tolist() == [0, -1, 0, -1, 2]
