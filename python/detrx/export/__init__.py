"""From weights to graphs, each behind a parity gate. Called, ``detrx.export(...)`` is ``detrx.export.run.export``."""

from detrx.callable_package import make_callable

make_callable(__name__)
