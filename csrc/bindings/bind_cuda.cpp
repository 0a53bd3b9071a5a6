#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/bind.h"
#include "bindings/tensor_caster.h"
#include "cuda/assign.h"
#include "cuda/box_loss.h"
#include "cuda/cross_entropy.h"
#include "cuda/ddf_loss.h"
#include "cuda/deform_attn.h"
#include "cuda/fgl_loss.h"
#include "cuda/focal_loss.h"
#include "cuda/match.h"

namespace py = pybind11;

namespace detrx {
namespace {

// The weights one by one, so that no class of them has to cross.
void match_on_cuda(const AnyView<4>& logits, const AnyView<4>& boxes, const AnyView<2>& labels,
                   const AnyView<3>& truths, const AnyView<1>& counts, bool softmax, float class_,
                   float l1, float giou, float alpha, float gamma, const AnyView<3>& cost,
                   const AnyView<2>& match, const AnyView<1>& bad, const AnyView<1>& workspace,
                   std::int64_t stream) {
  const ClassCost kind = softmax ? ClassCost::softmax : ClassCost::focal;
  cuda::match(logits, boxes, labels, truths, counts, {kind, class_, l1, giou, alpha, gamma}, cost,
              match, bad, workspace, stream);
}

}  // namespace

void bind_cuda(py::module_& m) {
  bind_cuda_run(m);
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def("assign", &cuda::assign, py::arg("cost"), py::arg("counts"), py::arg("match"),
        py::arg("bad"), py::arg("workspace"), py::arg("stream"), Release());
  m.def("assign_workspace", &cuda::assign_workspace, py::arg("problems"), py::arg("targets"),
        py::arg("queries"));
  m.def("deform_attn", &cuda::deform_attn, py::arg("values"), py::arg("sides"),
        py::arg("locations"), py::arg("weights"), py::arg("points"), py::arg("softmax"),
        py::arg("out"), py::arg("stream"), Release());
  m.def("deform_attn_backward", &cuda::deform_attn_backward, py::arg("grad"), py::arg("values"),
        py::arg("sides"), py::arg("locations"), py::arg("weights"), py::arg("points"),
        py::arg("softmax"), py::arg("grad_values"), py::arg("grad_locations"),
        py::arg("grad_weights"), py::arg("stream"), Release());
  m.def("loss_parts", &cuda::loss_parts, py::arg("images"), py::arg("queries"));
  m.def("box_loss", &cuda::box_loss, py::arg("boxes"), py::arg("truths"), py::arg("owners"),
        py::arg("kind"), py::arg("normaliser"), py::arg("l1"), py::arg("away"), py::arg("iou"),
        py::arg("parts"), py::arg("stream"), Release());
  m.def("box_loss_backward", &cuda::box_loss_backward, py::arg("grad_l1"), py::arg("grad_away"),
        py::arg("boxes"), py::arg("truths"), py::arg("owners"), py::arg("kind"),
        py::arg("normaliser"), py::arg("grad_boxes"), py::arg("stream"), Release());
  m.def("focal_loss", &cuda::focal_loss, py::arg("logits"), py::arg("labels"), py::arg("owners"),
        py::arg("quality"), py::arg("kind"), py::arg("alpha"), py::arg("gamma"),
        py::arg("normaliser"), py::arg("sums"), py::arg("parts"), py::arg("stream"), Release());
  m.def("focal_loss_backward", &cuda::focal_loss_backward, py::arg("grad"), py::arg("logits"),
        py::arg("labels"), py::arg("owners"), py::arg("quality"), py::arg("kind"), py::arg("alpha"),
        py::arg("gamma"), py::arg("normaliser"), py::arg("grad_logits"), py::arg("stream"),
        Release());
  m.def("cross_entropy", &cuda::cross_entropy, py::arg("logits"), py::arg("labels"),
        py::arg("owners"), py::arg("no_object"), py::arg("means"), py::arg("log_sums"),
        py::arg("weights"), py::arg("parts"), py::arg("stream"), Release());
  m.def("cross_entropy_backward", &cuda::cross_entropy_backward, py::arg("grad"), py::arg("logits"),
        py::arg("labels"), py::arg("owners"), py::arg("no_object"), py::arg("log_sums"),
        py::arg("weights"), py::arg("grad_logits"), py::arg("stream"), Release());
  m.def("ddf_loss", &cuda::ddf_loss, py::arg("edges"), py::arg("confidence"), py::arg("owners"),
        py::arg("iou"), py::arg("counts"), py::arg("temperature"), py::arg("sums"),
        py::arg("log_sums"), py::arg("parts"), py::arg("stream"), Release());
  m.def("ddf_loss_backward", &cuda::ddf_loss_backward, py::arg("grad"), py::arg("edges"),
        py::arg("confidence"), py::arg("owners"), py::arg("iou"), py::arg("counts"),
        py::arg("temperature"), py::arg("log_sums"), py::arg("grad_edges"), py::arg("stream"),
        Release());
  m.def("fgl_loss", &cuda::fgl_loss, py::arg("edges"), py::arg("references"), py::arg("truths"),
        py::arg("owners"), py::arg("iou"), py::arg("reg_scale"), py::arg("up"),
        py::arg("normaliser"), py::arg("sums"), py::arg("parts"), py::arg("stream"), Release());
  m.def("fgl_loss_backward", &cuda::fgl_loss_backward, py::arg("grad"), py::arg("edges"),
        py::arg("references"), py::arg("truths"), py::arg("owners"), py::arg("iou"),
        py::arg("reg_scale"), py::arg("up"), py::arg("normaliser"), py::arg("grad_edges"),
        py::arg("stream"), Release());
  m.def("match", &match_on_cuda, py::arg("logits"), py::arg("boxes"), py::arg("labels"),
        py::arg("truths"), py::arg("counts"), py::arg("softmax"), py::arg("class_"), py::arg("l1"),
        py::arg("giou"), py::arg("alpha"), py::arg("gamma"), py::arg("cost"), py::arg("match"),
        py::arg("bad"), py::arg("workspace"), py::arg("stream"), Release());
}

}  // namespace detrx
