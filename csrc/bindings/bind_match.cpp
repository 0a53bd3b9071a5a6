#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "bindings/bind.h"
#include "bindings/tensor_caster.h"
#include "cpu/match.h"
#include "cpu/match_owners.h"

namespace py = pybind11;

namespace detrx {
namespace {

using Labels = TensorView<const std::int64_t, 2>;
using Truths = TensorView<const float, 3>;
using Counts = TensorView<const std::int32_t, 1>;

// class_, l1, giou, alpha, gamma
using Weights = std::array<float, 5>;

CostWeights named(const Weights& weights, bool softmax) {
  return {softmax ? ClassCost::softmax : ClassCost::focal,
          weights[0],
          weights[1],
          weights[2],
          weights[3],
          weights[4]};
}

std::int64_t match(const AnyView<4>& logits, const AnyView<4>& boxes, const Labels& labels,
                   const Truths& truths, const Counts& counts, const Weights& weights, bool softmax,
                   const TensorView<std::int32_t, 2>& match, const TensorView<std::int32_t, 1>& bad,
                   int threads) {
  return cpu::match({logits, boxes, labels, truths, counts}, named(weights, softmax), match, bad,
                    threads);
}

void match_cost(const AnyView<4>& logits, const AnyView<4>& boxes, const Labels& labels,
                const Truths& truths, const Counts& counts, const Weights& weights, bool softmax,
                const TensorView<float, 3>& cost) {
  cpu::match_cost({logits, boxes, labels, truths, counts}, named(weights, softmax), cost);
}

}  // namespace

void bind_match(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def("agree", &cpu::agree, py::arg("owners"), py::arg("agreed"), Release());
  m.def("match", &match, py::arg("logits"), py::arg("boxes"), py::arg("labels"), py::arg("truths"),
        py::arg("counts"), py::arg("weights"), py::arg("softmax"), py::arg("match"), py::arg("bad"),
        py::arg("threads"), Release());
  m.def("match_cost", &match_cost, py::arg("logits"), py::arg("boxes"), py::arg("labels"),
        py::arg("truths"), py::arg("counts"), py::arg("weights"), py::arg("softmax"),
        py::arg("cost"), Release());
  m.def("owners", &cpu::owners, py::arg("match"), py::arg("owners"), Release());
}

}  // namespace detrx
