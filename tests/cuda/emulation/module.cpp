// The functions of detrx._C.cuda over the emulator, as a module of their own.
#include <pybind11/pybind11.h>

#include "bindings/bind.h"
#include "core/box.h"
#include "core/error.h"
#include "core/focal.h"
#include "emulator.h"

PYBIND11_MODULE(emulated_cuda, m) {
  pybind11::register_local_exception<detrx::ArgumentError>(m, "ArgumentError", PyExc_ValueError);
  pybind11::enum_<detrx::Overlap>(m, "Overlap", pybind11::module_local())
      .value("iou", detrx::Overlap::iou)
      .value("giou", detrx::Overlap::giou)
      .value("diou", detrx::Overlap::diou)
      .value("ciou", detrx::Overlap::ciou);
  pybind11::enum_<detrx::FocalKind>(m, "FocalKind", pybind11::module_local())
      .value("focal", detrx::FocalKind::focal)
      .value("varifocal", detrx::FocalKind::varifocal)
      .value("mal", detrx::FocalKind::mal);
  m.def("shuffle", [](unsigned seed) { emulator::seed = seed; });
  detrx::bind_cuda(m);
}
