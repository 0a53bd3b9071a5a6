#include <pybind11/pybind11.h>

#include "bindings/bind.h"
#include "core/error.h"

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of detrx.";
  m.attr("__version__") = DETRX_VERSION;
  m.attr("BUILT_WITH") = py::make_tuple(DETRX_BUILT_WITH);
  py::register_exception<detrx::ArgumentError>(m, "ArgumentError", PyExc_ValueError);
  py::register_exception<detrx::DeviceError>(m, "DeviceError", PyExc_RuntimeError);
  detrx::bind_ops(m);
}
