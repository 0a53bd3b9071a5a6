"""``detrx export``: a file for a runtime, and how far it is from the weights."""

from __future__ import annotations

import sys
from typing import Sequence

import tyro

from detrx.export.config import ExportConfig

REJECTED = 3


def run(args: Sequence[str]) -> int:
    """Returns 3 for a file that does not answer as its weights do."""
    config = tyro.cli(ExportConfig, args=list(args), prog="detrx export")
    from detrx.export.parity import ParityError
    from detrx.export.run import export

    try:
        result = export(
            config.model,
            to=config.to,
            out=config.out,
            precision=config.precision,
            batch=config.batch,
            top=config.top,
            canvas=config.canvas,
            images=config.images,
            data=config.data,
        )
    except ParityError as error:
        print(f"detrx export: {error}", file=sys.stderr)
        return REJECTED
    print(result.report.table())
    print(f"wrote {result.path} ({result.bytes / 2**20:.1f} MiB) in {result.seconds:.1f} s")
    print(f"next:\n  detrx detect PHOTO_OR_FOLDER --model {result.path}")
    return 0
