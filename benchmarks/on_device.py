"""Contenders on a CUDA device measured in turns, by the device's own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch


def interleave(contenders: dict[str, Callable[[], Any]], *, title: str, rounds: int = 30) -> dict[str, float]:
    """Run the contenders in turns and print medians in us and the ratio of the first to each other.

    A time is that between two events on the stream around a call: where a contender waits for the device or for the
    host inside, that is in it.

    Returns:
        The median of each in us.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        for _ in range(3):
            run()
    for _ in range(rounds):
        for name, run in contenders.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            run()
            end.record()
            end.synchronize()
            times[name].append(1e3 * start.elapsed_time(end))
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    ours = next(iter(medians.values()))
    parts = [f"{name} {median:.1f} us ({ours / median:.2f})" for name, median in medians.items()]
    print(f"\n{title}: {', '.join(parts)}")
    return medians


def record(benchmark: Any, run: Callable[[], Any], medians: dict[str, float], **facts: Any) -> None:
    """Put one contender's time on the host's clock, and all medians, into the results."""

    def whole() -> None:
        run()
        torch.cuda.synchronize()

    benchmark.extra_info.update({f"{name} us": round(median, 2) for name, median in medians.items()}, **facts)
    benchmark.pedantic(whole, rounds=20, warmup_rounds=3)


def device_only(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same work as one captured graph: what it costs without Python."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def copy_bandwidth() -> float:
    """Bytes a second that a copy within the device's memory reads and writes, in TB/s."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    medians = interleave({"copy": lambda: target.copy_(source)}, title="copy of 256 MiB", rounds=10)
    return 2 * source.numel() / medians["copy"] / 1e6
