"""``detrx export``: a file for a runtime, and how far it is from the weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

import tyro

from detrx.export.config import ExportConfig

if TYPE_CHECKING:
    from detrx.export.engine import EngineSettings

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
            graph=config.graph,
            precision=config.precision,
            batch=config.batch,
            top=config.top,
            canvas=config.canvas,
            images=config.images,
            data=config.data,
            calibrate=config.calibrate,
            engine=_engine_settings(config),
            progress=_progress,
        )
    except ParityError as error:
        print(f"detrx export: {error}", file=sys.stderr)
        return REJECTED
    if result.kept:
        print(result.kept)
    print(result.report.table())
    if result.engine:
        print(result.engine)
    print(f"wrote {result.path} ({result.bytes / 2**20:.1f} MiB) in {result.seconds:.1f} s")
    print(f"next:\n  detrx detect PHOTO_OR_FOLDER --model {result.path}")
    return 0


def _engine_settings(config: ExportConfig) -> EngineSettings:
    from detrx.export.engine import EngineSettings

    return EngineSettings(
        target=config.tensorrt,
        batch=config.batches,
        workspace=config.workspace,
        timing_cache=Path(config.timing_cache) if config.timing_cache else None,
        plugins=Path(config.plugins) if config.plugins else None,
        capabilities=config.capabilities,
        trtexec=Path(config.trtexec) if config.trtexec else None,
    )


def _progress(done: int, total: int) -> None:
    end = "\n" if done == total else "\r"
    print(f"calibrating: {done} of {total} pictures", end=end, file=sys.stderr, flush=True)
