"""What is inside a TensorRT engine: its layers, their formats and times, and whether tensor cores run them.

Called, ``detrx.inspect(...)`` is ``detrx.inspect.run.inspect``.
"""

from detrx.callable_package import make_callable

make_callable(__name__)
