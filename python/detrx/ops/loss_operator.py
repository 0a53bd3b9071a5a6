"""What all loss operators are: sums with a gradient to one tensor, from a pair of native bodies on each device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detrx import native
from detrx.ops import cuda_bodies
from detrx.ops.cross import Choice, Divisor, cross, is_plain


class LossOperator:
    """``detrx::<name>`` and ``detrx::<name>_backward`` for torch, and the shortest way past torch's dispatcher.

    The native body ``<name>`` takes what ``arguments`` answers, and room for the outputs; ``<name>_backward`` takes the
    gradients of the sums, ``arguments``, the outputs that are kept, and room for the gradient of the first input.
    """

    def __init__(
        self,
        name: str,
        inputs: str,
        *,
        arguments: Callable[..., list[object]],
        room: Callable[..., tuple[Tensor, ...]],
        outputs: int = 1,
        sums: int = 1,
        keeps: bool = False,
        slopes: bool = False,
    ) -> None:
        """Define both operators.

        Args:
            name: of the operator and of its native bodies.
            inputs: in the words of torch.library, tensors first; the first of them takes the gradient.
            arguments: what the native bodies take for the inputs.
            room: empty tensors for the outputs.
            outputs: how many there are.
            sums: how many of these, the first, pass a gradient on; (L,) each.
            keeps: whether the way back reads the others.
            slopes: whether the body of the CPU takes room for the gradient of its one sum, or None, as its last
                argument but the threads.
        """
        self.name, self._arguments, self._room, self._slopes = name, arguments, room, slopes
        self._sums, self._tensors = sums, inputs.count("Tensor")
        self._kept = range(sums, outputs) if keeps else range(0)
        named = inputs.split(", ")
        back = [f"Tensor grad_{i}" for i in range(sums)] + named[: self._tensors]
        back += [f"Tensor output_{i}" for i in self._kept] + named[self._tensors :]
        answer = "Tensor" if outputs == 1 else f"({', '.join(['Tensor'] * outputs)})"
        self.custom = _define(name, self.forward, f"({inputs}) -> {answer}")
        self.custom_backward = _define(f"{name}_backward", self.backward, f"({', '.join(back)}) -> Tensor")
        self.custom.register_fake(lambda *given: _alone(room(*given)))
        self.custom_backward.register_fake(lambda *given: _like(given[sums]))
        self.custom.register_autograd(self._differentiate, setup_context=self._save)
        self._direct = _direct(self)

    def __call__(self, *inputs: Any) -> Any:
        """The outputs for the inputs: one tensor, or a tuple."""
        if not is_plain(inputs[0]):
            return self.custom(*inputs)
        if inputs[0].requires_grad and torch.is_grad_enabled():
            return self._direct(*inputs)
        return self.forward(*inputs)

    def forward(self, *inputs: Any, slopes: Tensor | None = None) -> Any:
        """The native body, without gradient; it may write the slopes by the way, see room_for_slopes."""
        room = self._room(*inputs)
        last = (slopes,) if self._slopes and not cuda_bodies.serves(inputs[0]) else ()
        _call(self.name, inputs[0], *self._arguments(*inputs), *room, *last, sums=True)
        return _alone(room)

    def room_for_slopes(self, first: Tensor) -> Tensor | None:
        """Where the body may write slopes, None where it cannot.

        Slopes that are rounded before they are scaled would lose what a loss in half precision is scaled up for.
        """
        fits = self._slopes and first.dtype == torch.float32 and not cuda_bodies.serves(first)
        return _like(first) if fits else None

    def backward(self, *given: Any) -> Tensor:
        """The native body on the way back: of the sums' gradients, tensors, outputs that are kept, and settings."""
        first, last = self._sums, self._sums + self._tensors
        settings = last + len(self._kept)
        grads, tensors, kept = given[:first], given[first:last], given[last:settings]
        to = _like(tensors[0])
        _call(f"{self.name}_backward", to, *grads, *self._arguments(*tensors, *given[settings:]), *kept, to)
        return to

    def _save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.settings = inputs[self._tensors :]
        ctx.save_for_backward(*inputs[: self._tensors], *(outputs[i] for i in self._kept))
        ctx.mark_non_differentiable(*outputs[self._sums :])
        ctx.set_materialize_grads(False)  # else a gradient of zeros is made for every output

    def _saved(self, ctx: Any, grads: tuple[Tensor | None, ...]) -> list[Any]:
        """What the way back takes; a sum that nobody used has no gradient."""
        saved = ctx.saved_tensors
        found = (
            saved[0].new_zeros(saved[0].shape[0], dtype=torch.float32) if grad is None else grad
            for grad in grads[: self._sums]
        )
        return [*found, *saved, *ctx.settings]

    def _differentiate(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        to = self.custom_backward(*self._saved(ctx, grads))
        return (to, *(None,) * (self._tensors - 1 + len(ctx.settings)))


def _direct(operator: LossOperator) -> Callable[..., Any]:
    """The operator without the dispatcher's costs."""

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            ctx.slopes = operator.room_for_slopes(inputs[0])
            output = operator.forward(*inputs, slopes=ctx.slopes)
            operator._save(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            # The decorated one costs some microseconds more, and is for who differentiates twice.
            return (twice if torch.is_grad_enabled() else once)(ctx, *grads)

    def once(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, to = operator._saved(ctx, grads), ctx.slopes
        if to is None:
            to = operator.backward(*saved)
        else:
            ctx.slopes = None  # they are given away: who comes back another time has the slopes computed
            native.load().scale_slopes(cross(saved[0]), cross(to), torch.get_num_threads())
        return (to, *(None,) * (operator._tensors - 1 + len(ctx.settings)))

    twice = once_differentiable(once)
    apply: Callable[..., Any] = Direct.apply
    return apply


def _define(name: str, body: Callable[..., Any], schema: str) -> Any:
    return torch.library.custom_op(
        f"detrx::{name}", body, mutates_args=(), device_types=("cpu", "cuda"), schema=schema
    )


def _call(name: str, like: Tensor, *arguments: object, sums: bool = False) -> None:
    """Call the native body of that name on the device of a tensor."""
    if cuda_bodies.serves(like):
        cuda_bodies.call(name, like, *arguments, sums=sums)
    else:
        getattr(native.load(), name)(*map(_crossed, arguments), torch.get_num_threads())


def _crossed(argument: object) -> object:
    """What the bodies of the CPU take for an argument."""
    if isinstance(argument, Tensor):
        return cross(argument)
    if isinstance(argument, Divisor):
        return 1.0 if argument.normaliser is None else float(argument.normaliser)
    if isinstance(argument, Choice):
        return getattr(getattr(native.load(), argument.group), argument.name)
    return argument


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _alone(outputs: tuple[Tensor, ...]) -> Any:
    return outputs if len(outputs) > 1 else outputs[0]
