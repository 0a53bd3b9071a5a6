#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/bind.h"
#include "bindings/tensor_caster.h"
#include "cpu/assign.h"
#include "cpu/convert.h"
#include "cpu/deform_attn.h"
#include "cpu/mask_winners.h"

namespace py = pybind11;

namespace detrx {

void bind_ops(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def("assign", &cpu::assign, py::arg("cost"), py::arg("counts"), py::arg("match"),
        py::arg("bad"), py::arg("threads"), Release());
  m.def("convert", &cpu::convert, py::arg("source"), py::arg("target"), Release());
  m.def("deform_attn", &cpu::deform_attn, py::arg("values"), py::arg("sides"), py::arg("locations"),
        py::arg("weights"), py::arg("points"), py::arg("softmax"), py::arg("out"),
        py::arg("threads"), Release());
  m.def("deform_attn_backward", &cpu::deform_attn_backward, py::arg("grad"), py::arg("values"),
        py::arg("sides"), py::arg("locations"), py::arg("weights"), py::arg("points"),
        py::arg("softmax"), py::arg("grad_values"), py::arg("grad_locations"),
        py::arg("grad_weights"), py::arg("threads"), Release());
  m.def("mask_winners", &cpu::mask_winners, py::arg("logits"), py::arg("rows"), py::arg("columns"),
        py::arg("best"), py::arg("threads"), Release());
}

}  // namespace detrx
