"""The nodes of our own domain: what the plugin graph holds, and what the TensorRT plugins must compute.

This is the one place that names them. The graph is written with these names, the plugins in C++ are held to them, and
``export.plugin_reference`` says in numpy what each node computes. TensorRT's parser finds a plugin by the node's name,
``plugin_version`` and ``plugin_namespace``, which every node carries, and hands its other attributes over as fields:
``int`` and ``ints`` as int32 (a plugin takes int64 as well), ``float`` as float32.

T is the type of a node's first input: float32, float16 or bfloat16. Sums, softmax and coordinates are float32 inside
every node, whatever T is.
"""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN = "detrx"
DOMAIN_VERSION = 1
PLUGIN_VERSION = "1"
PLUGIN_NAMESPACE = "detrx"
HEAD_DIMENSION = 32
"""Channels of a head that DetrxAttention is written for."""

GRAPHS = ("pure", "plugin")


@dataclass(frozen=True)
class Port:
    """An input or output of a node."""

    name: str
    shape: str
    type: str
    """T, or the one type that it always has."""
    meaning: str
    optional: bool = False


@dataclass(frozen=True)
class Attribute:
    """A constant of a node."""

    name: str
    type: str
    """int, ints or float."""
    meaning: str
    optional: bool = False


@dataclass(frozen=True)
class NodeKind:
    """One kind of node: its name is the op_type in the graph and the name of the plugin."""

    name: str
    computes: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    attributes: tuple[Attribute, ...]


DEFORM_ATTN = NodeKind(
    "DetrxDeformAttn",
    "multi-scale deformable attention (arXiv 2010.04159), softmax and sampling locations included",
    (
        Port("values", "(B, S, H, D)", "T", "the levels one after another, each row by row"),
        Port("boxes", "(B, Q, 4)", "float32", "centres cx, cy, w, h in [0, 1] of the canvas"),
        Port(
            "offsets", "(B, Q, H * P * 2)", "T", "x, y of each head's points, points of all levels in order"
        ),
        Port("logits", "(B, Q, H * P)", "T", "what a softmax over the P points of a head makes weights of"),
    ),
    (Port("out", "(B, Q, H * D)", "T", "for each head the sum of weight times bilinear sample"),),
    (
        Attribute("shapes", "ints", "height and width of each level, 2 * L numbers"),
        Attribute("points", "ints", "how many of the P points belong to each of the L levels"),
        Attribute(
            "reach",
            "float",
            "a point of a level with n points lies at centre + offset * (w, h) * reach / n, and is "
            "read as grid_sample reads it: bilinear, zeros outside, align_corners=False",
        ),
    ),
)
DECODE = NodeKind(
    "DetrxDecode",
    "the best `top` objects of each image, best first; of equal scores the lower index first",
    (
        Port("logits", "(B, Q, W)", "float32", "class logits"),
        Port("boxes", "(B, Q, 4)", "float32", "centres cx, cy, w, h in [0, 1]"),
    ),
    (
        Port("scores", "(B, top)", "float32", "in [0, 1]"),
        Port("labels", "(B, top)", "int32", "index of the class"),
        Port("corners", "(B, top, 4)", "float32", "x0, y0, x1, y1, clipped to [0, 1]"),
        Port("queries", "(B, top)", "int32", "index of the query, for what else is known of it"),
    ),
    (
        Attribute("top", "int", "objects of an image, at most Q * W, or Q with `each`"),
        Attribute("each", "int", "0: every pair of query and class may answer; 1: a query answers once"),
        Attribute("no_object", "int", "0: scores are a sigmoid; 1: a softmax whose last column is dropped"),
        Attribute("columns", "ints", "the column of each class; absent: all, in order", optional=True),
    ),
)
LAYER_NORM = NodeKind(
    "DetrxLayerNorm",
    "layer normalisation over the last axis, for TensorRT 8.5, which has none",
    (
        Port("x", "(..., C)", "T", "of rank 2 to 4"),
        Port("gain", "(C,)", "float32", "constant"),
        Port("bias", "(C,)", "float32", "constant"),
    ),
    (Port("out", "(..., C)", "T", "(x - mean) / sqrt(variance + epsilon) * gain + bias"),),
    (Attribute("epsilon", "float", "added to the variance"),),
)
ATTENTION = NodeKind(
    "DetrxAttention",
    "softmax(scale * query key^T + bias) value for each head, for TensorRT 8.5, which does not fuse it",
    (
        Port("query", "(B, N, H * D)", "T", "heads one after another; D is 32"),
        Port("key", "(B, S, H * D)", "T", ""),
        Port("value", "(B, S, H * D)", "T", ""),
        Port(
            "bias",
            "(B, S)",
            "float32",
            "added to all scores of a key; minus infinity hides it",
            optional=True,
        ),
    ),
    (Port("out", "(B, N, H * D)", "T", ""),),
    (Attribute("heads", "int", "H"), Attribute("scale", "float", "of the scores")),
)

KINDS = {kind.name: kind for kind in (DEFORM_ATTN, DECODE, LAYER_NORM, ATTENTION)}
NEWER = frozenset({DEFORM_ATTN.name, DECODE.name})
"""What the plugin graph holds for TensorRT 8.6 and later, which normalise and attend well themselves."""
ALL = frozenset(KINDS)
"""What it holds for TensorRT 8.5."""


def markdown() -> str:
    """All kinds as the tables of docs/guides/tensorrt.md."""
    lines = []
    for kind in KINDS.values():
        lines += [f"### {kind.name}", "", f"{kind.computes[0].upper()}{kind.computes[1:]}.", ""]
        lines += ["| | name | shape or kind | type | |", "|---|---|---|---|---|"]
        for what, ports in (("input", kind.inputs), ("output", kind.outputs)):
            for port in ports:
                name = f"`{port.name}`" + (" (optional)" if port.optional else "")
                lines.append(f"| {what} | {name} | {port.shape} | {port.type} | {port.meaning} |")
        for one in kind.attributes:
            name = f"`{one.name}`" + (" (optional)" if one.optional else "")
            lines.append(f"| attribute | {name} | | {one.type} | {one.meaning} |")
        lines.append("")
    return "\n".join(lines)
