"""How fast a graph could be on a device that is not here: its work counted, laid under the device's roofline.

Called, ``detrx.estimate(...)`` is ``detrx.estimate.run.estimate``.
"""

from detrx.callable_package import make_callable

make_callable(__name__)
