#include <pybind11/pybind11.h>

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of detrx.";
  m.attr("__version__") = DETRX_VERSION;
  m.attr("BUILT_WITH") = py::make_tuple(DETRX_BUILT_WITH);
}
