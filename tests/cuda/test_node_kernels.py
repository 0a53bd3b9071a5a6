"""The kernels behind the nodes of the plugin graph, by the emulator and on a device, held to numpy's word on each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detrx import native
from detrx.export import plugin_reference as reference

TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
CLOSE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Of numbers about 1, as far as one rounding of the answer goes; float32 sums are in another order."""


class Kernels:
    """The functions of detrx._C.cuda, or of the emulator, for tensors of the CPU."""

    def __init__(self, module: Any, device: str) -> None:
        self.module, self.device = module, device

    def __call__(self, name: str, *arguments: Any) -> None:
        """Everything lies on the device for the time of the call."""
        there = [one.to(self.device) if isinstance(one, torch.Tensor) else one for one in arguments]
        given = [torch.utils.dlpack.to_dlpack(x) if isinstance(x, torch.Tensor) else x for x in there]
        getattr(self.module, name)(*given, 0)
        for one, other in zip(arguments, there):
            if isinstance(one, torch.Tensor) and one is not other:
                one.copy_(other)


@pytest.fixture(params=["emulator", pytest.param("cuda", marks=pytest.mark.needs("cuda"))])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    torch.manual_seed(0)
    if request.param == "cuda":
        return Kernels(native.load().cuda, "cuda")
    emulator = request.getfixturevalue("emulator")
    emulator.shuffle(0)
    return Kernels(emulator, "cpu")


def empty_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.full_like(tensor, float("nan"))


def wide(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.float().numpy()


@TYPES
@pytest.mark.parametrize("shape", [(5, 256), (1, 32), (3, 70), (4, 1), (0, 8)])
@pytest.mark.parametrize("residual", [False, True])
def test_layer_norm(kernels: Kernels, shape: tuple[int, int], dtype: torch.dtype, residual: bool) -> None:
    x, more = (torch.randn(shape) * 2 + 30).to(dtype), torch.randn(shape).to(dtype)
    gain, bias = torch.rand(shape[1]) + 0.5, torch.randn(shape[1])
    out = empty_like(x)
    kernels("layer_norm", x, more if residual else None, gain, bias, 1e-5, out)
    total = wide(x) + (wide(more) if residual else 0)
    (wanted,) = reference.layer_norm({"epsilon": 1e-5}, total, gain.numpy(), bias.numpy())
    np.testing.assert_allclose(wide(out), wanted, rtol=CLOSE[dtype], atol=max(CLOSE[dtype], 2e-5))


def test_layer_norm_of_large_numbers_is_finite(kernels: Kernels) -> None:
    """Squares of these overflow float16, and their mean is far larger than their spread."""
    x = (60000 + 32 * torch.randint(-3, 4, (2, 64))).half()
    gain, bias, out = torch.ones(64), torch.zeros(64), empty_like(x)
    kernels("layer_norm", x, None, gain, bias, 1e-5, out)
    (wanted,) = reference.layer_norm({"epsilon": 1e-5}, x.double().numpy(), gain.numpy(), bias.numpy())
    np.testing.assert_allclose(wide(out), wanted, atol=2e-3)


def attend(kernels: Kernels, parts: Any, bias: Any, *, heads: int, scale: float) -> torch.Tensor:
    out = empty_like(parts[0])
    kernels("attention", *parts, bias, heads, scale, out)
    return out


@TYPES
@pytest.mark.parametrize(
    ("images", "queries", "keys", "heads"), [(2, 70, 67, 3), (1, 1, 1, 1), (1, 16, 128, 1), (1, 3, 300, 2)]
)
@pytest.mark.parametrize("hidden", [False, True])
def test_attention(
    kernels: Kernels, images: int, queries: int, keys: int, heads: int, dtype: torch.dtype, hidden: bool
) -> None:
    # Scores of up to about 10, so that a few keys decide and the highest comes late for some queries.
    parts = [torch.randn(images, n, heads * 32).to(dtype) * 1.4 for n in (queries, keys, keys)]
    bias = torch.randn(images, keys) if hidden else None
    if bias is not None:
        bias[:, 1::3] = float("-inf")
    settings = {"heads": heads, "scale": 32**-0.5}
    found = attend(kernels, parts, bias, **settings)
    numbers = [wide(part) for part in parts]
    (wanted,) = reference.attention(settings, *numbers, None if bias is None else bias.numpy())
    close = {torch.float32: 5e-6, torch.float16: 8e-3, torch.bfloat16: 1.6e-2}[dtype]
    np.testing.assert_allclose(wide(found), wanted, rtol=close, atol=close)


@TYPES
def test_attention_survives_large_scores(kernels: Kernels, dtype: torch.dtype) -> None:
    """Products of 100,000, which float16 does not hold: the softmax is of one key alone."""
    parts = [torch.zeros(1, n, 32, dtype=dtype) for n in (20, 80, 80)]
    parts[0][...] = 60
    parts[1][:, 70] = 60
    parts[2][:] = torch.arange(80)[:, None].to(dtype)
    found = attend(kernels, parts, None, heads=1, scale=1.0)
    np.testing.assert_array_equal(wide(found), 70)


@TYPES
def test_attention_of_hidden_keys_is_zero_and_nan_is_seen(kernels: Kernels, dtype: torch.dtype) -> None:
    parts = [torch.randn(2, n, 32).to(dtype) for n in (5, 90, 90)]
    bias = torch.zeros(2, 90)
    bias[0] = float("-inf")
    parts[0][1, 3, 0] = float("nan")
    found = attend(kernels, parts, bias, heads=1, scale=0.2)
    assert not found[0].any()
    assert found.isnan().nonzero().tolist() == [[1, 3, c] for c in range(32)]


@TYPES
@pytest.mark.parametrize("channels", [32, 6])
def test_deform_attn_of_boxes(kernels: Kernels, channels: int, dtype: torch.dtype) -> None:
    images, queries, heads, shapes, points = 2, 7, 3, [4, 6, 2, 3], [4, 2]
    values = torch.randn(images, 30, heads, channels).to(dtype)
    boxes = torch.rand(images, queries, 4)
    offsets = (2 * torch.randn(images, queries, heads * 12)).to(dtype)
    logits = torch.randn(images, queries, heads * 6).to(dtype)
    out = torch.full((images, queries, heads * channels), float("nan"), dtype=dtype)
    kernels("deform_attn_of_boxes", values, shapes, boxes, offsets, logits, points, 0.5, out)
    settings = {"shapes": shapes, "points": points, "reach": 0.5}
    (wanted,) = reference.deform_attn(settings, wide(values), boxes.numpy(), wide(offsets), wide(logits))
    np.testing.assert_allclose(wide(out), wanted, rtol=CLOSE[dtype], atol=max(CLOSE[dtype], 2e-5))


@pytest.mark.parametrize(
    ("each", "no_object", "columns"),
    [(0, 0, []), (1, 1, []), (1, 0, []), (1, 1, [0, 2, 5, 40]), (1, 0, [7, 3])],
)
@pytest.mark.parametrize("top", [1, 33])
def test_decode_node(kernels: Kernels, each: int, no_object: int, columns: list[int], top: int) -> None:
    logits, boxes = torch.randn(2, 33, 42), torch.rand(2, 33, 4)
    shape = (2, top)
    found = [torch.zeros(shape), torch.zeros(shape, dtype=torch.int32), torch.zeros(*shape, 4)]
    found.append(torch.zeros(shape, dtype=torch.int32))
    work = torch.empty(kernels.module.decode_workspace(2, 33, bool(each)), dtype=torch.uint8)
    kernels("decode_node", logits, boxes, each, no_object, columns, *found, work)
    settings = {"top": top, "each": each, "no_object": no_object, "columns": columns}
    wanted = reference.decode(settings, logits.numpy(), boxes.numpy())
    for one, other in zip(found, wanted):
        np.testing.assert_allclose(one.numpy(), other, rtol=2e-6, atol=1e-7)


def test_what_does_not_fit_is_refused(kernels: Kernels) -> None:
    x, line = torch.zeros(1, 4, 64), torch.zeros(64)
    with pytest.raises(ValueError, match="32 channels for each of 3 heads, got 64"):
        attend(kernels, [x, x, x], None, heads=3, scale=1.0)
    with pytest.raises(ValueError, match="all must be float32, got float16"):
        attend(kernels, [x, x.half(), x], None, heads=2, scale=1.0)
    shifted = torch.zeros(257, device=kernels.device)[1:]
    with pytest.raises(ValueError, match="multiple of 16 bytes"):
        attend(kernels, [shifted.reshape(1, 4, 64), x, x], None, heads=2, scale=1.0)
    with pytest.raises(ValueError, match=r"gain must have shape \(64\), got \(63\)"):
        kernels("layer_norm", x[0], None, line[1:], line, 1e-5, x[0])
    column = torch.zeros(1, 4, dtype=torch.int32)
    answers = (torch.zeros(1, 4), column, torch.zeros(1, 4, 4), column)
    work = torch.empty(kernels.module.decode_workspace(1, 4, True), dtype=torch.uint8)
    with pytest.raises(ValueError, match="column 64 is none of 64"):
        kernels("decode_node", x, torch.zeros(1, 4, 4), True, False, [64], *answers, work)
