"""Predictions, targets and owners for the tests of the loss operators; run by path, as tests are no package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detrx.ops.box_loss import box_loss
from detrx.ops.cross_entropy import cross_entropy
from detrx.ops.ddf_loss import ddf_loss
from detrx.ops.fgl_loss import fgl_loss
from detrx.ops.focal_loss import focal_loss
from detrx.ops.loss_reference import (
    box_loss_reference,
    cross_entropy_reference,
    ddf_loss_reference,
    fgl_loss_reference,
    focal_loss_reference,
)


@dataclass
class Scene:
    boxes: Tensor
    logits: Tensor
    edges: Tensor
    references: Tensor
    truths: Tensor
    labels: Tensor
    owners: Tensor
    quality: Tensor
    normaliser: Tensor
    confidence: Tensor


def scene(
    *, stages=2, images=3, queries=33, targets=5, classes=19, bins=8, dtype=torch.float32, share=0.3, seed=0
) -> Scene:
    """About a share of the queries own a target; a target may have no query, or several."""
    g = torch.Generator().manual_seed(seed)
    shape = (stages, images, queries)

    def boxes(*lead: int) -> Tensor:
        return torch.rand(*lead, 4, generator=g) * 0.4 + 0.1

    owners = torch.randint(max(targets, 1), shape, generator=g, dtype=torch.int32)
    owned = torch.rand(shape, generator=g) < share
    return Scene(
        boxes=boxes(*shape).to(dtype),
        logits=(torch.randn(*shape, classes, generator=g) * 3 - 1).to(dtype),
        edges=torch.randn(*shape, 4, bins + 1, generator=g).to(dtype),
        references=boxes(*shape),
        truths=boxes(images, targets),
        labels=torch.randint(classes - 1, (images, targets), generator=g),
        owners=torch.where(owned & (targets > 0), owners, -1),
        quality=torch.rand(shape, generator=g),
        normaliser=torch.tensor(3.0),
        confidence=torch.rand(shape[1:], generator=g),
    )


@dataclass
class Loss:
    """One operator, called alike: of the prediction that takes the gradient, and a scene."""

    name: str
    of: str
    """The field of the scene that takes the gradient."""
    native: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: Callable[[Scene], tuple[Any, ...]]
    settings: dict[str, Any]
    needs: tuple[str, ...] = ()
    """Fields that are passed by their own names."""

    def __call__(self, s: Scene, *, native: bool = True) -> Tensor:
        """The sums of all kinds, (K, L)."""
        body = self.native if native else self.reference
        named = {name: getattr(s, name) for name in self.needs}
        found = body(getattr(s, self.of), *self.arguments(s), **self.settings, **named)
        return torch.stack(found[:2]) if isinstance(found, tuple) else found[None]

    def with_gradient(self, s: Scene, *, native: bool = True) -> tuple[Tensor, Tensor]:
        leaf = getattr(s, self.of).detach().requires_grad_()
        found = self(Scene(**{**vars(s), self.of: leaf}), native=native)
        slope = torch.linspace(0.5, 2, found.numel(), dtype=found.dtype).reshape(found.shape)
        return found.detach(), torch.autograd.grad((found * slope).sum(), leaf)[0]


def of_boxes(s: Scene) -> tuple[Tensor, ...]:
    return s.truths, s.owners


def of_logits(s: Scene) -> tuple[Tensor, ...]:
    return s.labels, s.owners


def of_edges(s: Scene) -> tuple[Tensor, ...]:
    return s.references, s.truths, s.owners, s.quality


def of_layers(s: Scene) -> tuple[Tensor, ...]:
    return s.confidence, s.owners, s.quality


def losses() -> dict[str, Loss]:
    found = {}
    for kind in ("iou", "giou", "diou", "ciou"):
        found[kind] = Loss(
            "box_loss",
            "boxes",
            box_loss,
            box_loss_reference,
            of_boxes,
            {"kind": kind},
            ("normaliser",),
        )
    for kind, alpha, gamma in (("focal", 0.25, 2.0), ("focal", 0.4, 1.5), ("varifocal", 0.75, 2.0)) + (
        ("varifocal", 0.6, 0.0),
        ("mal", 0.3, 1.5),
        ("mal", 0.3, 2.0),
    ):
        found[f"{kind}-{gamma}"] = Loss(
            "focal_loss",
            "logits",
            focal_loss,
            focal_loss_reference,
            of_logits,
            {"kind": kind, "alpha": alpha, "gamma": gamma},
            ("quality", "normaliser"),
        )
    found["cross_entropy"] = Loss(
        "cross_entropy",
        "logits",
        cross_entropy,
        cross_entropy_reference,
        of_logits,
        {"no_object": 0.1},
    )
    found["fgl"] = Loss(
        "fgl_loss",
        "edges",
        fgl_loss,
        fgl_loss_reference,
        of_edges,
        {"reg_scale": 4.0, "up": 0.5},
        ("normaliser",),
    )
    found["ddf"] = Loss("ddf_loss", "edges", ddf_loss, ddf_loss_reference, of_layers, {"temperature": 3.0})
    return found
