"""Contenders measured each in a process of its own, in turns, so that no library's threads or memory slow another's.

A process made for it calls :func:`serve`; the benchmark starts it as a :class:`Contender` and calls :func:`take_turns`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from machine import describe


class Contender:
    """A fresh Python that has warmed up and waits."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        """
        Args:
            command: what follows the interpreter.

        Raises:
            RuntimeError: it ended before it was ready; its own standard error says why.
        """
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about: dict[str, Any] = self._answer()
        self.worked: list[float] = []
        """Seconds of processor time of each call so far, all threads of the process together."""

    def run(self, calls: int) -> list[float]:
        """Seconds of each of so many calls."""
        print(calls, file=self._process.stdin, flush=True)
        answer = self._answer()
        self.worked += answer["worked"]
        seconds: list[float] = answer["seconds"]
        return seconds

    def close(self) -> None:
        self._process.communicate()

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"{self.name} ended with exit code {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


def serve(
    call: Callable[[], Any], *, warmup: int, about: dict[str, Any], settle: Callable[[], Any] | None = None
) -> None:
    """Warm up, then answer each number on standard input with the seconds of so many calls.

    Args:
        about: what the benchmark should know of this process.
        settle: called at the start of each turn, as the caches are the others' then; None for the call itself.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not stand between the answers
    for _ in range(warmup):
        call()
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        (settle or call)()
        seconds, worked = [], []
        for _ in range(int(line)):
            start, began = time.perf_counter(), time.process_time()
            call()
            worked.append(time.process_time() - began)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "worked": worked}), file=answers, flush=True)


def take_turns(contenders: Sequence[Contender], *, rounds: int, calls: int) -> dict[str, Any]:
    """Let each in turn make so many calls, so many times over, and set the first against each of the others.

    Returns:
        "milliseconds": name -> median, p90 and min of all calls, and their median on the processor, all threads
        together. "ratios": name -> the first one's median over this one's, "of_medians", "of_minima", "of_rounds", the
        median of such a ratio in each round, which the machine's drift leaves alone, and "of_processor_time", which
        other work leaves alone but for threads that spin. "ratio": the largest "of_medians", that to the best of
        the others. "machine": where, with the load before and after.
    """
    machine = describe()
    seconds: dict[str, list[list[float]]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            seconds[contender.name].append(contender.run(calls))
    middles = {name: [statistics.median(turn) for turn in turns] for name, turns in seconds.items()}
    table = {name: _summary(np.array(turns) * 1e3) for name, turns in seconds.items()}
    for contender in contenders:
        table[contender.name]["processor"] = statistics.median(contender.worked) * 1e3
    first, *others = (contender.name for contender in contenders)
    ratios = {
        name: {
            "of_medians": table[first]["median"] / table[name]["median"],
            "of_minima": table[first]["min"] / table[name]["min"],
            "of_rounds": statistics.median(a / b for a, b in zip(middles[first], middles[name])),
            "of_processor_time": table[first]["processor"] / table[name]["processor"],
        }
        for name in others
    }
    return {
        "milliseconds": table,
        "ratios": ratios,
        "ratio": max(ratio["of_medians"] for ratio in ratios.values()),
        "about": {contender.name: contender.about for contender in contenders},
        "machine": {**machine, "load": [machine["load"], describe()["load"]]},
    }


def _summary(milliseconds: np.ndarray) -> dict[str, float]:
    return {
        "median": float(np.median(milliseconds)),
        "p90": float(np.percentile(milliseconds, 90)),
        "min": float(milliseconds.min()),
    }


def show(found: dict[str, Any], *, title: str) -> None:
    """Print what take_turns found."""
    print(f"\n{title}")
    for name, row in found["milliseconds"].items():
        line = f"  {name:<22} median {row['median']:7.2f}  p90 {row['p90']:7.2f}  min {row['min']:7.2f} ms"
        if name in found["ratios"]:
            ratio = found["ratios"][name]
            words = ", ".join(f"{value:.2f} {key.replace('_', ' ')}" for key, value in ratio.items())
            line += f"   ratio {words}"
        print(line)
    print(f"  ratio to the better one: {found['ratio']:.2f}")
