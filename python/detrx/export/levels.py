"""A float32 graph in each of the precisions, and the table of what stayed high and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrx.errors import ConfigError
from detrx.export.calibrate import Progress
from detrx.export.gate import calibration_files, laid, named_pictures
from detrx.export.plugin_nodes import DOMAIN
from detrx.export.precision import BF16_OPSET, at_opset, lower, overflowing
from detrx.export.qdq import Quantized
from detrx.export.quantize import quantize_int4, quantize_int8
from detrx.export.quantize_cpu import quantize_for_cpu
from detrx.preprocess import lay
from detrx.types import ModelInfo

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int8-b", "int8-cpu", "int4")
OVERFLOW_IMAGES = 4
FUSED = ("Relu", "Clip", "Add", "Mul", "Sigmoid", "HardSwish", "HardSigmoid")
"""What runtimes fuse with the convolution before it."""


@dataclass(frozen=True)
class Leveled:
    """A graph in its precision."""

    model: Any
    runnable: Any
    """The same for ONNX Runtime's CPU, which has no bfloat16: there the rounding is played on float32."""
    table: str
    """What stayed in a higher precision, and why."""


def level(
    model: Any,
    info: ModelInfo,
    *,
    precision: str,
    calibrate: str | Path | None = None,
    data: str | Path | None = None,
    images: Sequence[str | Path] | None = None,
    progress: Progress | None = None,
) -> Leveled:
    """Rewrite a float32 graph.

    Args:
        model: an onnx.ModelProto.
        info: what it is.
        precision: one of PRECISIONS; 8-bit graphs compute in float16 where they do not in 8 bits, 4-bit ones too, but
            for int8-cpu: half precision is slower there.
        calibrate: a folder of pictures for the ranges of int8; None takes the data set's training split.
        data: a data set.
        images: pictures to look for overflow on; None takes the data set's, or generated scenes.
        progress: called with calibration pictures done and in all.

    Raises:
        ConfigError: int8 without pictures to calibrate on, or of the plugin graph.
        DataError: no picture, or one that cannot be read.
    """
    ours = any(node.domain == DOMAIN for node in model.graph.node)
    if precision == "fp32":
        return Leveled(model, model, "")
    if ours and precision != "fp16":
        raise ConfigError(
            f"[export] precision {precision} is written for the pure graph; pass --graph pure, or --precision fp16"
        )
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    if precision == "int8-cpu":
        made = _quantized(model, info, precision, batch, calibrate, data, progress)
        return Leveled(made.model, made.model, _table(made, precision))
    keep: dict[str, str] = {}
    if not ours:
        some = [picture for _, picture in _first(named_pictures(info, images, data), OVERFLOW_IMAGES)]
        pixels = (lay([picture] * batch, info)[0] for picture in some)
        keep, _ = overflowing(model, pixels, precision="bf16" if precision == "bf16" else "fp16")
    if precision in ("fp16", "bf16"):
        model = at_opset(model, BF16_OPSET) if precision == "bf16" else model
        lowered, report = lower(model, precision=precision, keep=keep)
        runnable = (
            lower(model, precision=precision, keep=keep, emulate=True)[0] if precision == "bf16" else lowered
        )
        return Leveled(lowered, runnable, report.table())
    made = _quantized(model, info, precision, batch, calibrate, data, progress)
    keep.update(dict.fromkeys(_neighbours(made), "int8" if precision != "int4" else "int4"))
    lowered, report = lower(made.model, precision="fp16", keep=keep)
    return Leveled(lowered, lowered, f"{_table(made, precision)}\n{report.table()}")


def _quantized(
    model: Any,
    info: ModelInfo,
    precision: str,
    batch: int,
    calibrate: str | Path | None,
    data: str | Path | None,
    progress: Progress | None,
) -> Quantized:
    if precision == "int4":
        return quantize_int4(model)
    files = calibration_files(calibrate, data, info)
    if not files:
        raise ConfigError(
            f"[export] {precision} is calibrated on pictures as the model will see them: pass --calibrate FOLDER "
            "with some hundred of them, or --data ROOT"
        )
    pictures, total = laid(files, info, batch), len(files)
    if precision == "int8-cpu":
        return quantize_for_cpu(model, pictures, total=total, progress=progress)
    which = "b" if precision == "int8-b" else "a"
    return quantize_int8(model, pictures, total=total, level=which, progress=progress)


def _neighbours(made: Quantized) -> set[str]:
    """Nodes that read integers, and those between two of them that a runtime fuses with them."""
    changed = set(made.changed)
    readers: dict[str, list[Any]] = {}
    for node in made.model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = set(changed)
    waiting = [node for node in made.model.graph.node if node.name in changed and node.op_type == "Conv"]
    while waiting:
        for reader in (r for name in waiting.pop().output for r in readers.get(name, [])):
            if reader.op_type in FUSED and reader.name not in found:
                found.add(reader.name)
                waiting.append(reader)
    return found


def _table(made: Quantized, precision: str) -> str:
    rows: dict[str, list[str]] = {}
    for name, why in made.kept.items():
        rows.setdefault(why, []).append(name)
    lines = [f"{'not in ' + precision + ' because of':<32} {'nodes':>5}  for example"]
    lines += [f"{why[:32]:<32} {len(names):5d}  {names[0][-60:]}" for why, names in sorted(rows.items())]
    lines.append(f"{'in ' + precision:<32} {len(made.changed):5d}")
    return "\n".join(lines)


def _first(pairs: Any, many: int) -> list[Any]:
    return [pair for _, pair in zip(range(many), pairs)]
