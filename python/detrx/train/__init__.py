"""Training: settings, schedule, loop, state, run folder. Called, ``detrx.train(...)`` is ``detrx.train.run.train``."""

from detrx.callable_package import make_callable

make_callable(__name__)
