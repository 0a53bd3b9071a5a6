"""``detrx explain``: what a model looks at."""

from __future__ import annotations

from typing import List, Sequence, Tuple

import tyro

from detrx.errors import ConfigError
from detrx.explain.config import ExplainConfig


def run(args: Sequence[str]) -> int:
    config = tyro.cli(ExplainConfig, args=list(args), prog="detrx explain")
    points = read_points(config.points)
    from detrx.explain.run import explain

    report = explain(
        config.model,
        config.picture,
        data=config.data,
        split=config.split,
        out=config.out,
        threshold=config.threshold,
        most=config.most,
        queries=config.queries,
        points=points,
        per_head=config.per_head,
        slots=config.slots,
        limit=config.limit,
        device=config.device,
        threads=config.threads,
        progress=config.progress,
    )
    for note in report.notes:
        print(note)
    if report.left:
        print(f"{report.left} more pictures were not looked at; --limit takes more")
    if report.use is not None:
        use = report.use
        print(
            f"{len(use.boxes)} pictures, {use.counts.sum()} detections from score {use.threshold:g}: "
            f"{use.used} of {len(use.counts)} queries detect anything, {use.busiest(0.9)} make 90% of it"
        )
    print(f"look at {report.page}")
    return 0


def read_points(texts: Sequence[str]) -> List[Tuple[float, float]]:
    """(x, y) of each "x,y".

    Raises:
        ConfigError: not two numbers with a comma between them.
    """
    points = []
    for text in texts:
        try:
            x, y = (float(side) for side in text.split(","))
        except ValueError as error:
            raise ConfigError(
                f"[command line] --points must be places x,y in pixels, as --points 120,80 300,95; got {text!r}"
            ) from error
        points.append((x, y))
    return points
