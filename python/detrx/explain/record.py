"""What a model's parts were given, heard by hooks: the model computes what it always does, bit for bit."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from detrx.models.decoder import DeformableAttention
from detrx.models.detr_layers import Attention

Heard = dict[str, dict[str, Any]]
"""The arguments of each part's last call, by the part's name and the argument's."""


@contextmanager
def listen(parts: Mapping[str, nn.Module]) -> Iterator[Heard]:
    """While it is open, what the parts are called with is kept (not copied)."""
    heard: Heard = {}

    def hear(name: str, part: nn.Module) -> Any:
        signature = inspect.signature(part.forward)

        def keep(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            heard[name] = dict(signature.bind(*args, **named).arguments)

        return part.register_forward_pre_hook(keep, with_kwargs=True)

    handles = [hear(name, part) for name, part in parts.items()]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def attention_rows(part: Attention, given: Mapping[str, Any], rows: Tensor) -> Tensor:
    """Where some queries of a heard call looked, for a batch of one picture.

    Only these rows are computed: the whole map of a large picture would take gigabytes.

    Args:
        part: the module that was heard.
        given: its arguments.
        rows: (N,) int64 positions among the queries.

    Returns:
        (N, heads, S) shares of 1.
    """
    query = cast(Tensor, given["query"])[rows.to(given["query"].device)]
    return part.scores(query, given["key"], given.get("hidden")).transpose(0, 1)


def sampled(part: DeformableAttention, given: Mapping[str, Any], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where some queries of a heard call read the maps, for a batch of one picture.

    Returns:
        (N, heads, P, 2) x, y in [0, 1] of the canvas, and (N, heads, P) shares of 1 in each head.
    """
    rows = rows.to(given["query"].device)
    locations, weights = part.sample(given["query"][:, rows], given["boxes"][:, rows])
    return locations[0], weights[0]
