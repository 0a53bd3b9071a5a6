"""Which cores a kernel runs on, by what NVIDIA's names of kernels say.

The names are no interface and differ between libraries and generations of GPUs, so that there are three answers. What
the tokens mean was gathered from inspected engines and from the names that CUTLASS and cuBLAS give their kernels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TENSOR, CUDA, UNKNOWN = "tensor", "cuda", "unknown"
_SHAPES = r"884|1688|16816|161616|8816|8832|16832|16864"
_TENSOR = (
    r"tensor\d+x\d+x\d+",  # xmma: the shape of one instruction
    rf"(?<![a-z0-9])[hsid](?:{_SHAPES})(?!\d)",  # cuDNN, cuBLAS, CUTLASS: h884, s1688, i16832
    r"warpgroupsize|wgmma|gmma|tcgen05|utcmma",  # Hopper, Blackwell
    r"tensorop|wmma|hmma|imma|bmma|qmma",
    r"detrx::.*tensor_kernel",  # ours, of attention
    r"_mha_v\d|fmha|_mha(?![a-z])|multihead_attention|flash_fwd",
)
_CUDA = (
    r"ffma|simt|dp4a|int8x4",
    r"scudnn|hcudnn|sgemm|dgemm|hgemm|igemm|gemv",
    r"sm(?:50|52|60|61)_",  # made for GPUs before tensor cores
    r"reformat|copy|permut|transpose|cast|vectorized|nchwto|nhwcto|memset|memcpy",
    r"pointwise|eltwise|elementwise|generatednative|softmax|layernorm|reduc|pool|resize|gather|scatter|concat|slice",
    r"topk|radix|sort|detrx::",
)
_FUSED = r"__my|kgen"
"""Kernels that TensorRT writes itself; they are named for what they compute."""
_PRODUCTS = r"Fc|Conv|Mat|Gemm|Mha|Dot"


@dataclass(frozen=True)
class Cores:
    """What the name of a kernel tells."""

    kind: str
    """TENSOR, CUDA or UNKNOWN."""
    instruction: str
    """HMMA (16-bit floats), IMMA (integers), or QMMA (8-bit floats) with its shape where the name has it."""


def cores_of(name: str) -> Cores:
    """Classify a tactic of the inspector or a kernel of a trace."""
    said = name.lower()
    for pattern in _TENSOR:
        found = re.search(pattern, said)
        if found:
            return Cores(TENSOR, _instruction(said, found.group()))
    if re.search(_FUSED, said):
        return Cores(UNKNOWN if re.search(_PRODUCTS, name.partition("_0x")[0]) else CUDA, "")
    return Cores(CUDA if any(re.search(pattern, said) for pattern in _CUDA) else UNKNOWN, "")


def _instruction(said: str, token: str) -> str:
    shape = re.search(r"\d+x\d+x\d+|\d{3,}", token)
    sides = shape.group() if shape else ""
    if "mha" in token or "multihead" in token or "flash" in token:
        return "fused attention"
    if re.search(r"e4m3|e5m2|fp8|qmma", said):
        kind = "QMMA"
    elif re.search(r"i8i8|int8|imma|_i8_", said) or re.search(rf"i(?:{_SHAPES})", token) or sides == "8x8x16":
        kind = "IMMA"
    else:
        kind = "DMMA" if re.search(rf"d(?:{_SHAPES})", token) else "HMMA"
    tf32 = " tf32" if "tf32" in said else ""
    return f"{kind} {sides}{tf32}".strip()
