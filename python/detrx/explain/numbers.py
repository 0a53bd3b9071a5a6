"""The numbers behind the pictures, as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from detrx.explain.look import AttentionMaps, Look
from detrx.explain.slots import KINDS, SlotUse


def write_look(look: Look, folder: Path, *, threshold: float) -> list[Path]:
    """numbers.npz holds every array, numbers.json what a person wants to read."""
    seen, found = look.seen, look.found
    arrays: dict[str, Any] = {
        "boxes": found.boxes,
        "scores": found.scores,
        "labels": found.labels,
        "queries": look.queries,
    }
    if isinstance(seen, AttentionMaps):
        arrays.update(
            points=seen.points, encoder=seen.encoder, decoder=seen.decoder, extent=np.array(seen.extent)
        )
        more: list[dict[str, Any]] = [{} for _ in found.scores]
    else:
        shares = seen.shares(found.boxes)
        arrays.update(locations=seen.locations, weights=seen.weights, levels=seen.levels, shares=shares)
        arrays["strides"] = np.array(seen.strides)
        more = [{"layers": [_levels(seen.strides, layer[k]) for layer in shares]} for k in range(len(found))]
    np.savez_compressed(folder / "numbers.npz", **arrays)
    listed = [
        {
            "query": int(query),
            "name": str(name),
            "score": round(score, 4),
            "box": [round(float(side), 2) for side in box],
            **extra,
        }
        for (box, score, _), name, query, extra in zip(found, found.names, look.queries, more)
    ]
    content: dict[str, Any] = {
        "picture": look.name,
        "size": list(look.image.shape[1::-1]),
        "threshold": threshold,
        "above_threshold": look.above,
        "detections": listed,
    }
    if isinstance(seen, AttentionMaps):
        content["points"] = seen.points.round(1).tolist()
    _write(folder / "numbers.json", content)
    return [folder / "numbers.json", folder / "numbers.npz"]


def _levels(strides: tuple[int, ...], shares: Any) -> list[dict[str, Any]]:
    """Of one layer, (levels, 2)."""
    return [
        {"stride": stride, "weight_inside_box": round(inside, 4), "weight_outside": round(outside, 4)}
        for stride, (inside, outside) in zip(strides, shares.tolist())
    ]


def write_use(use: SlotUse, out: Path) -> list[Path]:
    """slots.npz holds every answer, slots.json the sums."""
    np.savez_compressed(out / "slots.npz", boxes=use.boxes, scores=use.scores, labels=use.labels)
    kinds, sure = use.kinds(), use.scores >= use.threshold
    content = {
        "pictures": len(use.boxes),
        "queries": len(use.counts),
        "learned_queries": use.learned,
        "threshold": use.threshold,
        "detections": int(use.counts.sum()),
        "queries_used": use.used,
        "queries_for_90_percent": use.busiest(0.9),
        "effective_queries": round(use.effective, 2),
        "of_each_query": [
            {
                "query": slot,
                "detections": int(use.counts[slot]),
                "kinds": {
                    kind: int((sure[:, slot] & (kinds[:, slot] == n)).sum()) for n, kind in enumerate(KINDS)
                },
                "classes": _classes(use, slot),
            }
            for slot in range(len(use.counts))
        ],
    }
    _write(out / "slots.json", content)
    return [out / "slots.json", out / "slots.npz"]


def _classes(use: SlotUse, slot: int) -> dict[str, int]:
    labels = use.labels[use.scores[:, slot] >= use.threshold, slot]
    return {use.names[label]: int(count) for label, count in zip(*np.unique(labels, return_counts=True))}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
