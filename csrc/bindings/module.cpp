#include <pybind11/pybind11.h>

#include "bindings/bind.h"
#include "core/error.h"

namespace py = pybind11;

// Free of the GIL: a call touches its arguments, scratch of its thread, and a pool behind a mutex.
PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "Native kernels of detrx.";
  m.attr("__version__") = DETRX_VERSION;
  m.attr("BUILT_WITH") = py::make_tuple(DETRX_BUILT_WITH);
  py::register_exception<detrx::ArgumentError>(m, "ArgumentError", PyExc_ValueError);
  py::register_exception<detrx::DeviceError>(m, "DeviceError", PyExc_RuntimeError);
  detrx::bind_losses(m);
  detrx::bind_match(m);
  detrx::bind_ops(m);
  detrx::bind_run(m);
#if defined(DETRX_WITH_CUDA)
  py::module_ cuda = m.def_submodule("cuda", "The kernels for CUDA tensors.");
  detrx::bind_cuda(cuda);
#endif
}
