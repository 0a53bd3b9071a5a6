"""The layers of an engine, out of what TensorRT's inspector says of it.

TensorRT 8 and 10 give one text for format and type of a tensor ("Row major linear FP16 format", or of Myelin's kernels
"Half"), TensorRT 11 two, and a list of tensors under "I/O Tensors" where there was one of names under "Bindings".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from detrx.errors import EngineError

TYPES = (
    ("bf16", r"bfloat16|bf16"),
    ("fp16", r"fp16|half|float16"),
    ("fp8", r"fp8|e4m3|e5m2"),
    ("fp4", r"fp4|e2m1"),
    ("fp32", r"fp32|float"),
    ("uint8", r"uint8"),
    ("int8", r"int8"),
    ("int4", r"int4"),
    ("int32", r"int32"),
    ("int64", r"int64"),
    ("bool", r"bool"),
)
"""Our names of types, and TensorRT's: the first that is found."""
ARITHMETIC = ("int8", "fp8", "fp4", "int4", "fp16", "bf16", "fp32")
"""Types that a layer computes in; others are sizes and places."""
WIDTHS = {"two": 2, "four": 4, "eight": 8, "sixteen": 16, "thirty-two": 32}
OPERATIONS = (
    ("reformat", r"reformat|noop|shuffle|constant|copy|reshape|signal|wait|slice|concat|gather"),
    ("attention", r"mha|attention"),
    ("conv", r"conv"),
    ("matmul", r"gemm|matrixmultiply|matmul|fullyconnected"),
    ("plugin", r"plugin"),
    ("region", r"foreignnode|myelin"),
    (
        "pointwise",
        r"pointwise|kgen|elementwise|activation|scale|softmax|reduce|pool|normalization|resize|topk",
    ),
)
"""What a layer does, by its LayerType: the first that is found. A region is a part of the graph that TensorRT 8 shows
as one layer, whatever kernels it runs."""
_DETAILED = "build with --profilingVerbosity=detailed (`detrx export --to engine` always does)"
_EXPORT = "trtexec --loadEngine=ENGINE --profilingVerbosity=detailed --exportLayerInfo=layers.json"


@dataclass(frozen=True)
class EngineTensor:
    """What a layer reads or writes."""

    name: str
    shape: Tuple[int, ...]
    """-1 where it is open."""
    type: str
    """Of TYPES; empty where TensorRT does not say."""
    layout: str
    """As "NCHW", "NHWC8" or "NC/32HW32"; empty where TensorRT does not say."""


@dataclass(frozen=True)
class EngineLayer:
    """One layer, mostly one kernel."""

    name: str
    kind: str
    """TensorRT's LayerType."""
    operation: str
    """Of OPERATIONS, or "other"."""
    precision: str
    """The type that it computes in, of ARITHMETIC or "tf32"; empty for one that only moves data, or says nothing."""
    tactic: str
    """The kernel that was chosen; empty where TensorRT does not say."""
    inputs: Tuple[EngineTensor, ...]
    outputs: Tuple[EngineTensor, ...]
    metadata: str
    """The nodes of the ONNX file behind it, as TensorRT 8.6 and later say."""
    flops: Optional[int]
    """Operations of its matrix product, out of its own shapes; a multiply-add is two. None where they do not say."""


@dataclass(frozen=True)
class EngineLayers:
    """All of them, in the order in which they run."""

    layers: Tuple[EngineLayer, ...]
    version: str
    """What wrote it: "8 or 10" or "11"."""
    profiles: int
    """Layers of further optimisation profiles, which are left out."""


def read_layers(path: Path) -> EngineLayers:
    """Read what ``trtexec --exportLayerInfo`` wrote.

    Raises:
        EngineError: it is something else, or names of layers alone.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(
            f"[inspect] {path} cannot be read as JSON: {error}; write it by `{_EXPORT}`"
        ) from error
    return parse_layers(text, what=str(path))


def parse_layers(text: str, *, what: str) -> EngineLayers:
    """Read what the inspector gives for a whole engine as JSON.

    Args:
        what: where it comes from, for messages.

    Raises:
        EngineError: it is something else, or names of layers alone.
    """
    found = read_json(text, what=what)
    rows = found.get("Layers") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise EngineError(
            f"[inspect] {what} must be the layers of an engine, found {_kind_of(found)}; write them by `{_EXPORT}`"
        )
    if not rows:
        raise EngineError(
            f"[inspect] {what} has no layers: the engine was built with profiling verbosity none; {_DETAILED}"
        )
    if not all(isinstance(row, dict) and "LayerType" in row for row in rows):
        raise EngineError(
            f"[inspect] {what} has names of layers alone, nothing of formats and kernels; {_DETAILED}"
        )
    first = [row for row in rows if not re.search(r"\[profile \d+\]", str(row.get("Name", "")))]
    try:
        layers = tuple(_layer(row) for row in first)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"[inspect] {what} has a layer that no known TensorRT writes: {type(error).__name__} {error}; "
            f"write it anew by `{_EXPORT}`"
        ) from error
    return EngineLayers(layers, "11" if "I/O Tensors" in found else "8 or 10", len(rows) - len(first))


def read_json(text: str, *, what: str) -> Any:
    """JSON as trtexec writes it, with control characters in its strings.

    Raises:
        EngineError: it is none.
    """
    try:
        return json.loads(text, strict=False)
    except ValueError as error:
        raise EngineError(f"[inspect] {what} is no JSON, or cut off: {error}; write it anew") from error


def plain(name: str) -> str:
    """A name without the control characters that TensorRT 8.6 and later join names by."""
    return re.sub(r"\s*[\x00-\x1f]\s*", " + ", name).strip()


def images_of(layers: Sequence[EngineLayer]) -> int:
    """The images of one run, out of the shape of the pixels; 1 where they are open."""
    shapes = (tensor.shape for layer in layers for tensor in layer.inputs if tensor.name == "pixels")
    return next((shape[0] for shape in shapes if shape and shape[0] > 0), 1)


def short(name: str, *, most: int) -> str:
    """A name for a table: its end, for names of nodes begin alike."""
    text = re.sub(r"^Reformatting CopyNode for (?:In|Out)put Tensor \d+ to ", "reformat: ", name)
    return text if len(text) <= most else f"..{text[2 - most :]}"


def _kind_of(found: Any) -> str:
    """What a file of another kind seems to be."""
    if isinstance(found, dict):
        if "engine_sha256" in found:
            return "the description beside an engine (give the engine itself)"
        if "levels" in found and "layers" in found:
            return "a report of `detrx inspect`"
        return "keys " + ", ".join(map(repr, list(found)[:5]))
    if isinstance(found, list) and any(isinstance(row, dict) and "averageMs" in row for row in found):
        return "the times of layers (pass them with --profile)"
    if isinstance(found, list) and any(isinstance(row, dict) and "latencyMs" in row for row in found):
        return "the times of whole runs (trtexec --exportTimes)"
    return f"a {type(found).__name__}"


def _layer(row: Dict[str, Any]) -> EngineLayer:
    inputs, outputs = (tuple(map(_tensor, row.get(key) or ())) for key in ("Inputs", "Outputs"))
    kind, tactic = str(row["LayerType"]), str(row.get("TacticName") or "")
    operation = _operation(f"{kind} {row.get('ParameterType', '')}", tactic)
    return EngineLayer(
        name=plain(str(row["Name"])),
        kind=kind,
        operation=operation,
        precision="" if operation == "reformat" else _precision(row, inputs, outputs, tactic),
        tactic=tactic,
        inputs=inputs,
        outputs=outputs,
        metadata=str(row.get("Metadata") or ""),
        flops=_flops(row, operation, inputs, outputs),
    )


def _tensor(row: Dict[str, Any]) -> EngineTensor:
    fields = {key.lower(): str(value) for key, value in row.items()}
    text = fields.get("format/datatype", fields.get("format", ""))
    return EngineTensor(
        name=plain(str(row["Name"])),
        shape=tuple(int(side) for side in row.get("Dimensions") or ()),
        type=_type(fields.get("datatype", text)),
        layout=_layout(text),
    )


def _type(text: str) -> str:
    return next((name for name, pattern in TYPES if re.search(pattern, text.lower())), "")


def _layout(text: str) -> str:
    said = text.lower()
    wide = re.search(r"([\w-]+) wide channel vectorized", said)
    if wide and wide[1] in WIDTHS:
        return f"NC/{WIDTHS[wide[1]]}HW{WIDTHS[wide[1]]}"
    if "channel major" in said:
        multiple = re.search(r"channel (?:%|==) (\d+)", said)
        return f"NHWC{multiple[1]}" if multiple else "NHWC"
    return "NCHW" if "row major" in said else ""


def _operation(kind: str, tactic: str) -> str:
    if re.search(r"_mha|fmha|multihead", tactic.lower()):
        return "attention"
    return next((name for name, pattern in OPERATIONS if re.search(pattern, kind.lower())), "other")


def _precision(row: Dict[str, Any], inputs: Tuple[EngineTensor, ...], outputs: Any, tactic: str) -> str:
    """The type of the first input that is computed with, or of the weights, or of what comes out."""
    weights = row.get("Weights")
    stored = _type(str(weights.get("Type", ""))) if isinstance(weights, dict) else ""
    types = [tensor.type for tensor in inputs] + [stored] + [tensor.type for tensor in outputs]
    found = next((name for name in types if name in ARITHMETIC), "")
    return "tf32" if found == "fp32" and "tf32" in tactic.lower() else found


def _flops(
    row: Dict[str, Any], operation: str, inputs: Tuple[EngineTensor, ...], outputs: Tuple[EngineTensor, ...]
) -> Optional[int]:
    shapes = [tensor.shape for tensor in (*inputs, *outputs)]
    if not inputs or not outputs or any(side < 0 for shape in shapes for side in shape):
        return None
    given, made = inputs[0].shape, outputs[0].shape
    if operation == "conv" and "Kernel" in row and len(given) > 2:
        kernel = prod(int(side) for side in row["Kernel"])
        groups = max(1, int(row.get("Groups", 1)))
        across = given if "deconv" in str(row["LayerType"]).lower() else made
        depth = made[1] if across is given else given[1]
        return 2 * prod(across) * kernel * depth // groups
    # A is (M, K), or (K, M) where it is transposed; what comes out is (M, N).
    if operation == "matmul" and len(given) > 1 and len(made) > 1 and made[-2] in given[-2:]:
        return 2 * prod(made) * (given[-1] if given[-2] == made[-2] else given[-2])
    return None


def names_of(layer: EngineLayer) -> List[str]:
    """The nodes of the ONNX file that a layer runs, as far as its text names them; "first...last" for a region."""
    named = re.findall(r"\[ONNX Layer: ([^\]]+)\]", layer.metadata)
    if named:
        return list(dict.fromkeys(part for text in named for part in plain(text).split(" + ")))
    if layer.name.startswith("Reformatting CopyNode"):
        return []
    region = re.search(r"ForeignNode\[(.+?\.\.\..+?)\]", layer.name)
    if region:
        return [region[1]]
    parts = re.split(r" \+ | \|\| |, ", re.sub(r"PWN\(|\)", "", layer.name))
    return [part for part in dict.fromkeys(text.strip() for text in parts) if part]
