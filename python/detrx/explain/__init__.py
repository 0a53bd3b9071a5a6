"""What a model looks at. Called, ``detrx.explain(...)`` is ``detrx.explain.run.explain``."""

from detrx.callable_package import make_callable

make_callable(__name__)
