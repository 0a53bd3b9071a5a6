"""Trade accuracy for speed without learning anew: the first decoder layers alone, and fewer queries."""

from __future__ import annotations

import dataclasses
from typing import Any

from detrx.errors import ConfigError
from detrx.models.config import DetrConfig
from detrx.models.zoo import Model, build


def lighten(model: Model, *, layers: int | None = None, queries: int | None = None) -> Model:
    """The same weights with less to compute, in eval mode.

    Every decoder layer has learnt to answer by itself, so that the first ones are a detector too (RT-DETR trades speed
    so, arXiv 2304.08069); and queries are the best cells of the picture, so that fewer of them are the best of those.

    Args:
        model: an ``rt`` or a ``detr``.
        layers: decoder layers to keep, from the first on; None: all that answer in use.
        queries: queries to keep, of the rt family; None: all.

    Raises:
        ConfigError: more than there are, fewer than one, or queries of the detr family, each of which has learnt a
            place.
    """
    config = model.config
    most = config.decoder_layers if isinstance(config, DetrConfig) else config.last_layer + 1
    if isinstance(config, DetrConfig) and queries is not None:
        raise ConfigError(
            f"[lighten] each query of {config.name} has learnt a place of its own, found queries {queries}; "
            "leave it out"
        )
    if layers is not None and isinstance(config, DetrConfig) and not config.auxiliary:
        raise ConfigError(
            f"[lighten] only the last layer of {config.name} has learnt to answer; keep all layers"
        )
    kept = _within("layers", layers, most)
    changes: dict[str, Any] = {"decoder_layers": kept} | (
        {} if isinstance(config, DetrConfig) else {"eval_layer": -1}
    )
    changes["queries"] = _within("queries", queries, config.queries)
    lighter = build(dataclasses.replace(config, **changes), classes=model.classes)
    wanted = lighter.state_dict()
    lighter.load_state_dict({key: tensor for key, tensor in model.state_dict().items() if key in wanted})
    return lighter.eval()


def _within(name: str, wanted: int | None, most: int) -> int:
    if wanted is not None and not 1 <= wanted <= most:
        raise ConfigError(f"[lighten] {name} must be from 1 to {most}, got {wanted}")
    return most if wanted is None else wanted
