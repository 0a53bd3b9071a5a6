"""Attention and sampling points drawn on pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detrx.evaluation.plots import draw_box, new_figure
from detrx.explain.look import AttentionMaps, Look, Sampling
from detrx.explain.views import Bar, Scene, Subject, View

LONG = 800
"""Pixels of the longer side of a painted picture."""
LEVEL_COLOURS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73")
"""Of Okabe and Ito, bright ones: they lie on a darkened picture."""
_DPI = 100
_NEAR = 0.35
"""A box whose sides are less than this share of the picture's is shown close up too."""

Region = tuple[float, float, float, float]


def paint(look: Look, *, threshold: float, per_head: bool = False) -> Scene:
    """All that is to be shown of a picture."""
    seen = look.seen
    subjects = []
    if isinstance(seen, AttentionMaps):
        subjects += [_point(look, seen, at, per_head) for at in range(len(seen.points))]
        subjects += [_attending(look, seen, at, per_head) for at in range(len(look.found))]
    else:
        subjects += [_sampling(look, seen, at, per_head) for at in range(len(look.found))]
    return Scene(look.name, note(look, threshold), _base(look), tuple(subjects))


def note(look: Look, threshold: float) -> str:
    """What is shown of how many."""
    shown = len(look.found)
    if look.found.scores.max(initial=0) < threshold and look.above == 0:
        return f"nothing reaches {threshold:g}; the best {shown} are explained"
    noun = "detection reaches" if look.above == 1 else "detections reach"
    return f"{look.above} {noun} {threshold:g}; {shown} explained"


def _title(look: Look, at: int) -> str:
    return f"{at + 1} {look.found.names[at]} {look.found.scores[at]:.2f}"


def _region(look: Look, box: NDArray[np.float32]) -> Region:
    height, width = look.image.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box)
    return x0 / width, y0 / height, x1 / width, y1 / height


def _base(look: Look) -> NDArray[np.uint8]:
    def draw(axes: Any) -> None:
        for at in reversed(range(len(look.found))):
            _detection(axes, look, at)
        if isinstance(look.seen, AttentionMaps):
            for at, point in enumerate(look.seen.points):
                _cross(axes, point, at)

    return _canvas(look.image, draw)


def _point(look: Look, seen: AttentionMaps, at: int, per_head: bool) -> Subject:
    point = seen.points[at]

    def view(title: str, caption: str, shares: NDArray[np.float32]) -> View:
        def draw(axes: Any) -> None:
            _heat(axes, shares, seen)
            _cross(axes, point, at)

        return View(title, caption, _canvas(_dim(look.image), draw))

    x, y = (float(side) for side in point)
    views = _over_heads(
        seen.encoder[at], f"Where the encoder's last layer looks from {x:.0f},{y:.0f}", view, per_head
    )
    height, width = look.image.shape[:2]
    around = (x / width - 0.02, y / height - 0.02, x / width + 0.02, y / height + 0.02)
    return Subject(f"point-{at + 1}", f"point {at + 1}: {x:.0f},{y:.0f}", around, views)


def _attending(look: Look, seen: AttentionMaps, at: int, per_head: bool) -> Subject:
    box = look.found.boxes[at]

    def view(title: str, caption: str, shares: NDArray[np.float32]) -> View:
        def draw(axes: Any) -> None:
            _heat(axes, shares, seen)
            _detection(axes, look, at)

        inside = f" {_inside(shares, box, seen):.0%} of it lies in cells whose middle is inside the box."
        return View(title, caption + inside, _canvas(_dim(look.image), draw))

    what = f"Where the decoder's last layer looks for this {look.found.names[at]} (query {look.queries[at]})"
    views = _over_heads(seen.decoder[at], what, view, per_head)
    return Subject(f"detection-{at + 1}", _title(look, at), _region(look, box), views)


def _over_heads(
    maps: NDArray[np.float32],
    what: str,
    view: Callable[[str, str, NDArray[np.float32]], View],
    per_head: bool,
) -> tuple[View, ...]:
    """The mean of the (heads, h, w) maps, then each."""
    mean = maps.mean(0)
    even = f"(evenly spread, each had {1 / mean.size:.1%})"
    caption = f"{what}, all {len(maps)} heads averaged. The brightest cell has {mean.max():.1%} of it {even}."
    views = [view("all heads", caption, mean)]
    if per_head:
        views += [
            view(
                f"head {n}",
                f"{what}, head {n} alone. The brightest cell has {one.max():.1%} of it {even}.",
                one,
            )
            for n, one in enumerate(maps, 1)
        ]
    return tuple(views)


def _inside(shares: NDArray[np.float32], box: NDArray[np.float32], seen: AttentionMaps) -> float:
    """Share of a map in the cells whose middle lies inside the box."""
    left, right, bottom, top = seen.extent
    height, width = shares.shape
    x = left + (np.arange(width) + 0.5) * (right - left) / width
    y = top + (np.arange(height) + 0.5) * (bottom - top) / height
    across, down = (x >= box[0]) & (x <= box[2]), (y >= box[1]) & (y <= box[3])
    return float((shares * down[:, None] * across).sum())


def _sampling(look: Look, seen: Sampling, at: int, per_head: bool) -> Subject:
    last, box = len(seen.weights) - 1, look.found.boxes[at]
    shares = seen.shares(look.found.boxes)[:, at]
    dimmed = _dim(look.image)

    def view(title: str, layer: int, *, head: int | None = None, window: Region | None = None) -> View:
        chosen = slice(None) if head is None else slice(head, head + 1)

        def draw(axes: Any) -> None:
            _detection(axes, look, at)
            _dots(
                axes,
                seen.locations[layer, at, chosen],
                seen.weights[layer, at, chosen],
                seen,
                _side(look, at, window),
            )

        what = f"Where decoder layer {layer + 1} reads the maps for query {look.queries[at]}"
        if head is not None:
            return View(title, f"{what}, head {head + 1} alone.", _canvas(dimmed, draw, window=window))
        inside = f"{shares[layer, :, 0].sum():.0%} of the weight lies inside the box."
        caption = f"{what}; the area of a dot is its weight. {inside}"
        return View(title, caption, _canvas(dimmed, draw, window=window), _bars(seen, shares[layer]))

    near = _close_up(look, at)
    views = [view("close up", last, window=near)] if near else []
    views += [view(f"layer {n + 1}" + ", the answer" * (n == last), n) for n in range(last, -1, -1)]
    if per_head:
        views += [view(f"head {n + 1}", last, head=n, window=near) for n in range(seen.weights.shape[2])]
    return Subject(f"detection-{at + 1}", _title(look, at), _region(look, box), tuple(views))


def _bars(seen: Sampling, shares: NDArray[np.float32]) -> tuple[Bar, ...]:
    """Of (levels, 2) shares inside and outside."""
    return tuple(
        Bar(f"stride {stride}", inside, outside, colour)
        for stride, (inside, outside), colour in zip(seen.strides, shares.tolist(), LEVEL_COLOURS)
    )


def _close_up(look: Look, at: int) -> Region | None:
    """The part of the picture around a small detection, of the picture's proportions; None for a large one."""
    height, width = look.image.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in look.found.boxes[at])
    share = max((x1 - x0) / width, (y1 - y0) / height)
    if share > _NEAR:
        return None
    # Never so near that the picture is a mere smear of a few pixels.
    share = max(1.2 * share, 32 / min(height, width))
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - share * width, y - share * height, x + share * width, y + share * height


def _side(look: Look, at: int, window: Region | None) -> float:
    """The detection's shorter side in painted points."""
    height, width = look.image.shape[:2]
    x0, y0, x1, y1 = window or (0, 0, width, height)
    box = look.found.boxes[at]
    return float(min(box[2] - box[0], box[3] - box[1])) * LONG / max(x1 - x0, y1 - y0) * 72 / _DPI


def _dots(
    axes: Any, places: NDArray[np.float32], weights: NDArray[np.float32], seen: Sampling, side: float
) -> None:
    """Points (heads, P, 2) with their weights (heads, P); dots are smaller in a box of a shorter side."""
    levels = np.broadcast_to(seen.levels, weights.shape).ravel()
    colours = np.array(LEVEL_COLOURS)[levels]
    largest = np.clip(0.15 * side, 5, 16) ** 2
    areas = 2 + largest * weights.ravel() / max(float(weights.max()), 1e-9)
    # The heavy ones first, so that none hides another.
    order = np.argsort(-areas)
    x, y = places[..., 0].ravel()[order], places[..., 1].ravel()[order]
    axes.scatter(x, y, s=areas[order], c=colours[order], alpha=0.75, edgecolors="black", linewidths=0.4)
    for level in np.unique(levels):
        axes.scatter([], [], s=60, color=LEVEL_COLOURS[level], label=f"stride {seen.strides[level]}")
    axes.legend(loc="lower right", fontsize=8, framealpha=0.85, borderpad=0.5, handletextpad=0.3)


def _detection(axes: Any, look: Look, at: int) -> None:
    box = look.found.boxes[at]
    # At the upper edge a name above the box would be cut off.
    inside = float(box[1]) < 0.04 * look.image.shape[0]
    draw_box(axes, box, int(look.found.labels[at]), _title(look, at), size=9, inside=inside)


def _cross(axes: Any, point: NDArray[np.float32], at: int) -> None:
    x, y = (float(side) for side in point)
    axes.plot(x, y, "o", markersize=9, markerfacecolor="white", markeredgecolor="black", markeredgewidth=1.2)
    axes.text(x, y, str(at + 1), fontsize=6.5, ha="center", va="center_baseline", color="black", clip_on=True)


def _heat(axes: Any, shares: NDArray[np.float32], seen: AttentionMaps) -> None:
    from matplotlib import colormaps

    values = shares / max(float(shares.max()), 1e-12)
    layer = colormaps["inferno"](0.25 + 0.75 * values)
    layer[..., 3] = 0.9 * values**0.7
    axes.imshow(layer, extent=seen.extent, interpolation="bilinear")


def _dim(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey and half as bright, so that colours on it mean something."""
    grey = image @ np.array([0.299, 0.587, 0.114], np.float32) * 0.55
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


def _canvas(
    image: NDArray[np.uint8], draw: Callable[[Any], None], *, window: Region | None = None
) -> NDArray[np.uint8]:
    """The picture, or a window of it in its pixels, with something drawn on it: no frame, the longer side LONG."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = window or (0, 0, width, height)
    scale = LONG / _DPI / max(x1 - x0, y1 - y0)
    figure = new_figure((x1 - x0) * scale, (y1 - y0) * scale)
    figure.set(layout_engine="none", dpi=_DPI, facecolor="#101318")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(image, extent=(0, width, height, 0), interpolation="bilinear")
    draw(axes)
    axes.set(xlim=(x0, x1), ylim=(y1, y0))
    axes.set_axis_off()
    figure.canvas.draw()
    painted: NDArray[np.uint8] = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    return painted


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    from matplotlib.image import imsave

    imsave(path, picture, format="png")


def as_jpeg(picture: NDArray[np.uint8]) -> bytes:
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, picture, format="jpeg", pil_kwargs={"quality": 84})
    return buffer.getvalue()


def sheet(panels: Sequence[tuple[str, NDArray[np.uint8]]], *, columns: int, title: str) -> Any:
    """A figure of pictures with a line over each."""
    rows = -(-len(panels) // columns)
    height, width = panels[0][1].shape[:2]
    figure = new_figure(3.2 * columns, (3.2 * height / width + 0.3) * rows + 0.4)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    cells = figure.subplots(rows, columns, squeeze=False)
    for axes in cells.flat:
        axes.set_axis_off()
    for axes, (text, picture) in zip(cells.flat, panels):
        axes.imshow(picture)
        axes.set_title(text, fontsize=9, loc="left")
    return figure


def bar_chart(subjects: Sequence[Subject]) -> Any:
    """Each detection's weight by level in the answering layer, the part inside its box filled."""
    levels = subjects[0].views[0].bars
    figure = new_figure(7.2, 0.34 * len(subjects) * len(levels) + 1.2)
    axes = figure.add_subplot()
    axes.set_title(
        "Share of the weight by level; filled: inside the box", loc="left", fontsize=11, fontweight="bold"
    )
    step = len(levels) + 0.8
    for row, subject in enumerate(subjects):
        for n, bar in enumerate(subject.views[0].bars):
            y, whole = row * step + n, bar.inside + bar.outside
            axes.barh(y, bar.inside, color=bar.colour, height=0.85, label=bar.name if row == 0 else None)
            axes.barh(y, bar.outside, left=bar.inside, color=bar.colour, height=0.85, alpha=0.3)
            axes.text(whole + 0.01, y, f"{whole:.0%}, {bar.inside:.0%} inside", va="center", fontsize=8)
    middles = [row * step + (len(levels) - 1) / 2 for row in range(len(subjects))]
    axes.set_yticks(middles, [subject.title for subject in subjects])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.25), xticks=np.linspace(0, 1, 6))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    return figure


def sheets(scene: Scene) -> dict[str, Any]:
    """The figures of a picture by their file names without ending: the paper's figures 3 and 6, or their like."""
    points = [one for one in scene.subjects if one.key.startswith("point")]
    found = [one for one in scene.subjects if not one.key.startswith("point")]
    drawn = {}
    if points:
        panels = [("the picture", scene.base)] + [(one.title, one.views[0].picture) for one in points]
        drawn["encoder"] = sheet(
            panels, columns=min(3, len(panels)), title="Encoder self-attention from points"
        )
    if found:
        sampled = bool(found[0].views[0].bars)
        panels = [(one.title, one.views[0].picture) for one in found]
        title = "Sampling points" if sampled else "Decoder attention"
        drawn["decoder"] = sheet(
            panels, columns=min(3, len(panels)), title=f"{title} of each detection, last layer"
        )
        if sampled:
            drawn["levels"] = bar_chart(found)
    return drawn
