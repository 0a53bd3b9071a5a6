"""What each operator must answer, written as plainly as it can be. Slow; for tests and for debugging."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def assign_reference(cost: NDArray[np.floating], counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Give every target its own query at the least total cost.

    Args:
        cost: (N, Q, M), finite where it is used.
        counts: (N,) how many of the M targets of each problem are real.

    Returns:
        (N, M) the query of each target; -1 past the count and, where targets outnumber queries, for those left out.
    """
    out = np.full((cost.shape[0], cost.shape[2]), -1, dtype=np.int64)
    for problem, count in enumerate(counts.tolist()):
        rows = np.asarray(cost[problem, :, :count].T, dtype=np.float64)
        if rows.shape[0] <= rows.shape[1]:
            out[problem, :count] = shortest_augmenting_path(rows)
        else:
            target = shortest_augmenting_path(rows.T)
            out[problem, target] = np.arange(len(target))
    return out


def shortest_augmenting_path(cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Assign each row of a (R, C) matrix, R <= C, its own column (Crouse 2016, the rectangular Jonker-Volgenant)."""
    rows, columns = cost.shape
    price = np.zeros(columns)
    gain = np.zeros(rows)
    owner = np.full(columns, -1)
    for start in range(rows):
        distance = np.full(columns, np.inf)
        before = np.full(columns, start)
        done = np.zeros(columns, dtype=bool)
        row, reached, end = start, 0.0, -1
        while end < 0:
            through = reached + cost[row] - gain[row] - price
            better = ~done & (through < distance)
            distance[better], before[better] = through[better], row
            column = int(np.where(done, np.inf, distance).argmin())
            reached, done[column] = distance[column], True
            row = int(owner[column])
            if row < 0:
                end = column
        gain[start] += reached
        for column in np.flatnonzero(done & (owner >= 0)).tolist():
            gain[owner[column]] += reached - distance[column]
        price[done] += distance[done] - reached
        _turn(owner, before, end, start)
    match = np.full(rows, -1, dtype=np.int64)
    match[owner[owner >= 0]] = np.flatnonzero(owner >= 0)
    return match


def _turn(owner: NDArray[np.int64], before: NDArray[np.int64], end: int, start: int) -> None:
    """Hand each column on the path to the row before it."""
    column, row = end, -1
    taken = {int(r): c for c, r in enumerate(owner) if r >= 0}
    while row != start:
        row = int(before[column])
        owner[column] = row
        column = taken.get(row, -1)


def match_reference(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    truths: Tensor,
    counts: Tensor,
    *,
    class_: float,
    l1: float,
    giou: float,
    alpha: float,
    gamma: float,
    class_cost: str = "focal",
) -> Tensor:
    """Find the query of each target, one image of one layer after another.

    Args:
        logits: (L, B, Q, C).
        boxes: (L, B, Q, 4) centres.
        labels: (B, M).
        truths: (B, M, 4) centres.
        counts: (B,) how many of the M targets are real.
        class_: and the other weights, as for match_cost_reference.

    Returns:
        (L * B, M) int32: the query of each target; -1 past the count and for targets left over.
    """
    found = torch.full((*logits.shape[:2], labels.shape[1]), -1, dtype=torch.int32)
    for layer in range(logits.shape[0]):
        for image, count in enumerate(counts.tolist()):
            cost = match_cost_reference(
                logits[layer, image],
                boxes[layer, image],
                labels[image, :count],
                truths[image, :count],
                class_=class_,
                l1=l1,
                giou=giou,
                alpha=alpha,
                gamma=gamma,
                class_cost=class_cost,
            )
            match = assign_reference(cost[None].cpu().numpy(), np.array([count]))
            found[layer, image, :count] = torch.from_numpy(match[0]).int()
    return found.flatten(0, 1)


def match_cost_reference(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    truths: Tensor,
    *,
    class_: float,
    l1: float,
    giou: float,
    alpha: float,
    gamma: float,
    class_cost: str = "focal",
) -> Tensor:
    """The cost (Q, T) of giving each of T targets each of Q queries of one image, in float64.

    Args:
        logits: (Q, C).
        boxes: (Q, 4) centres.
        labels: (T,).
        truths: (T, 4) centres.
        class_: weight of the class cost.
        l1: weight of the distance between centres and sizes.
        giou: weight of the generalised IoU.
        alpha: the focal loss's share of positives.
        gamma: the focal loss's power.
        class_cost: "focal": what a positive adds to the focal loss less what a negative does; "softmax": less the
            probability.
    """
    if class_cost == "softmax":
        by_class = -logits.double().softmax(-1)[:, labels]
    else:
        x = logits.double()[:, labels]
        p = x.sigmoid()
        positive = -alpha * (1 - p) ** gamma * torch.nn.functional.logsigmoid(x)
        negative = -(1 - alpha) * p**gamma * torch.nn.functional.logsigmoid(-x)
        by_class = positive - negative
    a, b = boxes.double()[:, None], truths.double()[None]
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    inter = (high - low).clamp(min=0).prod(-1)
    join = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - inter
    first = torch.minimum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    last = torch.maximum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    around = (last - first).prod(-1)
    generalised = inter / join - (around - join) / around
    return class_ * by_class + l1 * (a - b).abs().sum(-1) - giou * generalised


def owners_reference(match: Tensor, *, images: int, queries: int) -> Tensor:
    """(L, B, Q) int32: the target that each query owns, or -1, of a match (L * B, M)."""
    found = torch.full((match.shape[0], queries), -1, dtype=torch.int32)
    for problem, target in (match >= 0).nonzero().tolist():
        found[problem, match[problem, target]] = target
    return found.reshape(match.shape[0] // images, images, queries)


def agree_reference(owners: Tensor) -> Tensor:
    """(B, Q) int32: the target that most of L stages give a query, the lowest among equals; -1 for none."""
    _, images, queries = owners.shape
    found = torch.full((images, queries), -1, dtype=torch.int32)
    for image in range(images):
        for query in range(queries):
            votes = [vote for vote in owners[:, image, query].tolist() if vote >= 0]
            if votes:
                found[image, query] = min(votes, key=lambda vote: (-votes.count(vote), vote))
    return found


def deform_attn(
    values: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points_per_level: Sequence[int],
) -> Tensor:
    """Answer as ops.deform_attn does: each level is read four times, once for each corner of the points in it."""
    batch, queries, heads, _ = weights.shape
    image = torch.arange(batch).reshape(-1, 1, 1, 1)
    head = torch.arange(heads).reshape(1, 1, -1, 1)
    out = values.new_zeros(batch, queries, heads, values.shape[3])
    pixel, point = 0, 0
    for (height, width), count in zip(shapes, points_per_level):
        level = values[:, pixel : pixel + height * width].unflatten(1, (height, width))
        x = locations[:, :, :, point : point + count, 0] * width - 0.5
        y = locations[:, :, :, point : point + count, 1] * height - 0.5
        for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
            at_y, at_x = y.floor() + row, x.floor() + column
            share = (1 - (y - at_y).abs()) * (1 - (x - at_x).abs())
            inside = (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
            read = level[image, at_y.clamp(0, height - 1).long(), at_x.clamp(0, width - 1).long(), head]
            scale = share * inside * weights[:, :, :, point : point + count]
            out = out + (read * scale.unsqueeze(-1)).sum(3)
        pixel, point = pixel + height * width, point + count
    return out.reshape(batch, queries, heads * values.shape[3])
