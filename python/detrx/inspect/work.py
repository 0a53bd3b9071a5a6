"""The arithmetic of each layer of an engine: from its own shapes, or from the ONNX file that it was built from."""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from detrx.errors import EngineError
from detrx.inspect.layers import EngineLayer, names_of

COMPUTES = ("conv", "matmul", "attention", "region", "plugin", "other")
"""Operations of layers that may hold a matrix product."""
KNOWN = 0.5
"""The share of a file's arithmetic that must be in nodes which the layers name."""

Nodes = Mapping[str, Tuple[int, int]]
"""Operations of each node of an ONNX file, in its order: of matrix products, and others."""


def own_work(layers: Sequence[EngineLayer]) -> List[Optional[int]]:
    """Operations of the matrix product of each layer; None where its shapes do not say."""
    return [layer.flops for layer in layers]


def work_of_nodes(layers: Sequence[EngineLayer], nodes: Nodes) -> List[Optional[int]]:
    """Operations of each layer, as the nodes of the ONNX file behind it have them.

    A node behind several layers counts for those that may compute it, in equal parts. A region counts for all nodes
    from its first to its last that no other layer names.

    Raises:
        EngineError: the file is another model's.
    """
    named = [names_of(layer) for layer in layers]
    claims: Dict[str, List[int]] = {}
    for i, names in enumerate(named):
        for name in names:
            if name in nodes:
                claims.setdefault(name, []).append(i)
    _claim_regions(named, nodes, claims)
    work: List[int] = [0] * len(layers)
    for name, owners in claims.items():
        matrix, other = nodes[name]
        computing = [i for i in owners if layers[i].operation in COMPUTES] or owners
        for i in computing:
            work[i] += matrix // len(computing)
        for i in owners:
            work[i] += other // len(owners)
    _require_fit(sum(map(sum, (nodes[name] for name in claims))), sum(map(sum, nodes.values())))
    return [many if claimed else None for many, claimed in zip(work, _claimed(len(layers), claims))]


def _claim_regions(named: Sequence[Sequence[str]], nodes: Nodes, claims: Dict[str, List[int]]) -> None:
    order = {name: place for place, name in enumerate(nodes)}
    for i, names in enumerate(named):
        ends = names[0].split("...") if len(names) == 1 and "..." in names[0] else []
        places = [order[end] for end in ends if end in order]
        if len(places) != 2:
            continue
        for name in list(nodes)[min(places) : max(places) + 1]:
            claims.setdefault(name, [i])


def _claimed(many: int, claims: Dict[str, List[int]]) -> List[bool]:
    owners = {i for found in claims.values() for i in found}
    return [i in owners for i in range(many)]


def _require_fit(found: int, whole: int) -> None:
    if whole and found < KNOWN * whole:
        raise EngineError(
            f"[inspect] the ONNX file is another model's: the layers name nodes with {found / whole:.0%} of its "
            "operations; give the file that the engine was built from, or none"
        )
