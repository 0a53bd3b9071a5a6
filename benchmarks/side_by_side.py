"""Contenders measured in turns, so that whatever else the machine does hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def interleave(
    contenders: dict[str, Callable[[], Any]], *, rounds: int, title: str, into: dict[str, Any] | None = None
) -> float:
    """Run the contenders in turns and print medians and minima in ms; the first against the second is the ratio.

    The time on the processor is printed beside the time on the wall: on a busy machine it is the fairer one.
    Medians, minima and ratios are also written ``into`` a benchmark's extra_info, whose JSON holds the peers as well.

    Returns:
        The ratio of the medians on the wall.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    worked: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            start, began = time.perf_counter(), time.process_time()
            run()
            worked[name].append(time.process_time() - began)
            seconds[name].append(time.perf_counter() - start)
    parts = [f"{n} {1e3 * statistics.median(s):.4g} (min {1e3 * min(s):.4g}) ms" for n, s in seconds.items()]
    ours, peer = list(seconds.values())[:2]
    middle, lowest = statistics.median(ours) / statistics.median(peer), min(ours) / min(peer)
    busy, peer_busy = (statistics.median(s) for s in list(worked.values())[:2])
    print(f"\n{title}: {', '.join(parts)}")
    print(
        f"  ratio {middle:.3g} of medians, {lowest:.3g} of minima, {busy / peer_busy:.3g} of processor time"
    )
    if into is not None:
        into.setdefault("ms", {}).update({n: 1e3 * statistics.median(s) for n, s in seconds.items()})
        into.setdefault("min_ms", {}).update({n: 1e3 * min(s) for n, s in seconds.items()})
        ratios = {"medians": middle, "minima": lowest, "processor": busy / peer_busy}
        into.setdefault("ratios", {})[" / ".join(list(contenders)[:2])] = ratios
    return middle
