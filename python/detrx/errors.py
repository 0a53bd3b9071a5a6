"""The errors that detrx raises. Each message says where, what must be, what was found and what to type next."""

from __future__ import annotations


class DetrxError(Exception):
    """Everything that detrx raises on purpose."""


class DataError(DetrxError, ValueError):
    """A picture, annotation or data set that cannot be used as it is."""


class ConfigError(DetrxError, ValueError):
    """A setting that does not exist or is out of range."""


class CheckpointError(DetrxError, ValueError):
    """Weights that cannot be read or do not fit the model."""


class TrustError(CheckpointError):
    """A file that would run code if it were opened."""


class DownloadError(DetrxError, OSError):
    """A published file that cannot be fetched, or does not come as it was published."""


class ExportError(DetrxError, RuntimeError):
    """An exported graph that cannot be written, read or does not answer as the model does."""


class EngineError(DetrxError, RuntimeError):
    """An engine that does not fit this machine, this TensorRT or its sidecar."""


class SourceError(DetrxError, OSError):
    """A camera, stream, video or folder that cannot be opened or read."""


class DeviceError(DetrxError, RuntimeError):
    """A device that is missing, lost or out of memory."""


def pip_install(extra: str) -> str:
    """What to type for an extra of detrx: no package index has it, so that it is installed from its own folder."""
    return f'pip install ".[{extra}]"  # in the folder of detrx\'s source'


class MissingBackendError(DetrxError, ImportError):
    """Something optional is not installed."""

    def __init__(self, backend: str, remedy: str) -> None:
        super().__init__(f"{backend} is not available here. {remedy}")


class TrainingError(DetrxError, ArithmeticError):
    """A training run whose numbers are no longer finite."""
