#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/bind.h"
#include "bindings/tensor_caster.h"
#include "cpu/box_loss.h"
#include "cpu/cross_entropy.h"
#include "cpu/ddf_loss.h"
#include "cpu/fgl_loss.h"
#include "cpu/focal_loss.h"
#include "cpu/slopes.h"

namespace py = pybind11;

namespace detrx {

void bind_losses(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  py::enum_<Overlap>(m, "Overlap")
      .value("iou", Overlap::iou)
      .value("giou", Overlap::giou)
      .value("diou", Overlap::diou)
      .value("ciou", Overlap::ciou);
  py::enum_<FocalKind>(m, "FocalKind")
      .value("focal", FocalKind::focal)
      .value("varifocal", FocalKind::varifocal)
      .value("mal", FocalKind::mal);
  m.def("box_loss", &cpu::box_loss, py::arg("boxes"), py::arg("truths"), py::arg("owners"),
        py::arg("kind"), py::arg("normaliser"), py::arg("l1"), py::arg("away"), py::arg("iou"),
        py::arg("threads"), Release());
  m.def("box_loss_backward", &cpu::box_loss_backward, py::arg("grad_l1"), py::arg("grad_away"),
        py::arg("boxes"), py::arg("truths"), py::arg("owners"), py::arg("kind"),
        py::arg("normaliser"), py::arg("grad_boxes"), py::arg("threads"), Release());
  m.def("focal_loss", &cpu::focal_loss, py::arg("logits"), py::arg("labels"), py::arg("owners"),
        py::arg("quality"), py::arg("kind"), py::arg("alpha"), py::arg("gamma"),
        py::arg("normaliser"), py::arg("sums"), py::arg("slopes"), py::arg("threads"), Release());
  m.def("focal_loss_backward", &cpu::focal_loss_backward, py::arg("grad"), py::arg("logits"),
        py::arg("labels"), py::arg("owners"), py::arg("quality"), py::arg("kind"), py::arg("alpha"),
        py::arg("gamma"), py::arg("normaliser"), py::arg("grad_logits"), py::arg("threads"),
        Release());
  m.def("cross_entropy", &cpu::cross_entropy, py::arg("logits"), py::arg("labels"),
        py::arg("owners"), py::arg("no_object"), py::arg("means"), py::arg("log_sums"),
        py::arg("weights"), py::arg("slopes"), py::arg("threads"), Release());
  m.def("cross_entropy_backward", &cpu::cross_entropy_backward, py::arg("grad"), py::arg("logits"),
        py::arg("labels"), py::arg("owners"), py::arg("no_object"), py::arg("log_sums"),
        py::arg("weights"), py::arg("grad_logits"), py::arg("threads"), Release());
  m.def("ddf_loss", &cpu::ddf_loss, py::arg("edges"), py::arg("confidence"), py::arg("owners"),
        py::arg("iou"), py::arg("counts"), py::arg("temperature"), py::arg("sums"),
        py::arg("log_sums"), py::arg("threads"), Release());
  m.def("ddf_loss_backward", &cpu::ddf_loss_backward, py::arg("grad"), py::arg("edges"),
        py::arg("confidence"), py::arg("owners"), py::arg("iou"), py::arg("counts"),
        py::arg("temperature"), py::arg("log_sums"), py::arg("grad_edges"), py::arg("threads"),
        Release());
  m.def("fgl_loss", &cpu::fgl_loss, py::arg("edges"), py::arg("references"), py::arg("truths"),
        py::arg("owners"), py::arg("iou"), py::arg("reg_scale"), py::arg("up"),
        py::arg("normaliser"), py::arg("sums"), py::arg("threads"), Release());
  m.def("fgl_loss_backward", &cpu::fgl_loss_backward, py::arg("grad"), py::arg("edges"),
        py::arg("references"), py::arg("truths"), py::arg("owners"), py::arg("iou"),
        py::arg("reg_scale"), py::arg("up"), py::arg("normaliser"), py::arg("grad_edges"),
        py::arg("threads"), Release());
  m.def("scale_slopes", &cpu::scale_slopes, py::arg("grad"), py::arg("slopes"), py::arg("threads"),
        Release());
}

}  // namespace detrx
