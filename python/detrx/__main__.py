"""``python -m detrx`` is ``detrx``, for where the command is not on the PATH."""

from __future__ import annotations

from detrx.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
