"""Give a model what another one has learnt: all that fits, class heads row by row, and a word on all the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detrx.errors import CheckpointError
from detrx.models.config import DetrConfig, ModelConfig
from detrx.models.zoo import Model

_HEADS = re.compile(r"(class_embed|decoder\.enc_score_head|decoder\.dec_score_head\.\d+)\.(weight|bias)$")
"""Tensors with a row for each class."""
_NOISE = "decoder.denoising_class_embed.weight"
"""A row for each class, and a last one for none (rt)."""
_QUERIES = "query_embed.weight"
_NOTHING = "no object"
_UNNAMED = re.compile(r"class \d+$")


@dataclass(frozen=True)
class Transplant:
    """What became of every tensor."""

    taken: tuple[str, ...]
    """Names of those that were copied whole."""
    partly: tuple[tuple[str, str], ...]
    """Name, and which of its rows were copied."""
    fresh: tuple[tuple[str, str], ...]
    """Name of a tensor that starts afresh, and why."""
    unused: tuple[tuple[str, str], ...]
    """Name of a learnt tensor that has no place in the model, and why."""

    def summary(self, source: str) -> str:
        """One line."""
        parts = [f"{len(self.taken)} tensors from {source}"]
        if self.partly:
            parts.append(f"{len(self.partly)} in part")
        parts.append(f"{len(self.fresh)} start afresh")
        if self.unused:
            parts.append(f"{len(self.unused)} have no place")
        return ", ".join(parts)

    def table(self) -> str:
        """Every tensor that was not taken whole, one a line."""
        rows = [
            *(("in part", *row) for row in self.partly),
            *(("afresh", *row) for row in self.fresh),
            *(("no place", *row) for row in self.unused),
        ]
        width = max((len(row[1]) for row in rows), default=0)
        return "\n".join(f"{kind:<9} {name:<{width}}  {why}" for kind, name, why in rows)


def transplant(model: Model, other: Model, *, names: Sequence[str], other_names: Sequence[str]) -> Transplant:
    """Copy, in place, what ``other`` knows into ``model``.

    Tensors of the same name and shape are copied whole. Of class heads, the rows of classes that both know by name are;
    of two heads of which one has "no object" and the other has not, none, since their scores mean different things.
    Of learned queries the first are.

    Args:
        model: what is to learn.
        other: what has learnt.
        names: the classes of ``model``, in the order of its labels.
        other_names: the classes of ``other``; where they are only numbered and as many, they are taken for the same.

    Raises:
        CheckpointError: under half of the tensors fit, so that it is another model.
    """
    own, theirs = model.state_dict(), other.state_dict()
    rows, other_rows = _rows(model.config, names), _rows(other.config, other_names)
    if len(names) == len(other_names) and all(map(_UNNAMED.match, other_names)):
        other_rows = {**dict(zip(names, _columns(other.config, len(names)))), **_nothing(other.config)}
    strange = "the weights know none of the classes"
    if (_NOTHING in rows) != (_NOTHING in other_rows):
        strange = 'of this head and that of the weights, one has "no object" and the other has not'
    taken, partly, fresh = [], [], []
    for key, tensor in own.items():
        if key.endswith("num_batches_tracked") and key not in theirs:
            continue  # frozen norms count no batches
        pairs = _pairs(key, model.config, other.config, rows, other_rows)
        why = _misfit(key, tensor, theirs, pairs, strange=strange)
        if why:
            fresh.append((key, why))
        elif pairs is None:
            tensor.copy_(theirs[key])
            taken.append(key)
        else:
            _copy_rows(tensor, theirs[key], pairs)
            if len(pairs) == len(tensor):
                taken.append(key)
            else:
                partly.append((key, f"{len(pairs)} of {len(tensor)} rows; {_unknown(key)}"))
    _refuse_strangers(len(taken) + len(partly), len(own))
    unused = tuple((key, "this model has no such part") for key in theirs if key not in own)
    return Transplant(tuple(taken), tuple(partly), tuple(fresh), unused)


Pairs = list[tuple[int, int]]
"""Rows of ours, and the rows of theirs that go there."""


def _columns(config: ModelConfig, classes: int) -> Sequence[int]:
    """The head's row of each class."""
    columns = config.columns if isinstance(config, DetrConfig) else ()
    return columns or range(classes)


def _nothing(config: ModelConfig) -> dict[str, int]:
    return {_NOTHING: -1} if isinstance(config, DetrConfig) and config.no_object else {}


def _rows(config: ModelConfig, names: Sequence[str]) -> dict[str, int]:
    return {**dict(zip(names, _columns(config, len(names)))), **_nothing(config)}


def _pairs(
    key: str,
    config: ModelConfig,
    other: ModelConfig,
    rows: Mapping[str, int],
    other_rows: Mapping[str, int],
) -> Pairs | None:
    """Which rows go where in a tensor that has rows of its own; None for all other tensors."""
    if key == _QUERIES and isinstance(config, DetrConfig) and isinstance(other, DetrConfig):
        return (
            None
            if config.queries == other.queries
            else [(i, i) for i in range(min(config.queries, other.queries))]
        )
    if not _HEADS.match(key) and key != _NOISE:
        return None
    pairs = [(row, other_rows[name]) for name, row in rows.items() if name in other_rows]
    same_kind = (_NOTHING in rows) == (_NOTHING in other_rows)
    if key == _NOISE:
        pairs.append((-1, -1))
    return pairs if same_kind else []


def _misfit(
    key: str, tensor: Tensor, theirs: Mapping[str, Tensor], pairs: Pairs | None, *, strange: str
) -> str:
    """Why a tensor cannot be taken, or nothing."""
    if key not in theirs:
        return "the weights have no such part"
    found, wanted = tuple(theirs[key].shape), tuple(tensor.shape)
    if pairs is None or found[1:] != wanted[1:]:
        return "" if found == wanted else f"shape {wanted} here, {found} in the weights"
    return "" if len(pairs) > (key == _NOISE) else strange


@torch.no_grad()
def _copy_rows(tensor: Tensor, theirs: Tensor, pairs: Pairs) -> None:
    for row, other in pairs:
        tensor[row] = theirs[other]


def _unknown(key: str) -> str:
    return (
        "there are no more queries"
        if key == _QUERIES
        else "the others are of classes that the weights do not know"
    )


def _refuse_strangers(fitting: int, total: int) -> None:
    if fitting < total / 2:
        raise CheckpointError(
            f"[train] weights must be of a model like this one, found {fitting} of {total} tensors "
            "that fit; check --model, --backbone and --levels"
        )
