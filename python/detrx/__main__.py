"""``python -m detrx`` is ``detrx``, for where the command is not on the PATH."""

from __future__ import annotations

from detrx.cli.main import command

if __name__ == "__main__":
    command()
