#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>

#include "bindings/bind.h"
#include "bindings/tensor_caster.h"
#include "cpu/decode.h"
#include "cpu/letterbox.h"

namespace py = pybind11;

namespace detrx {
namespace {

using Plane = TensorView<const std::uint8_t, 3>;

// window is (top, left, height, width); the rows of normal (3, 3) are scale, shift and empty.
void letterbox(const Plane& plane, const std::optional<Plane>& chroma, PixelFormat format,
               Colours colours, const std::array<std::int64_t, 4>& window,
               const TensorView<const float, 2>& normal, const AnyView<3>& out, int threads) {
  require_shape("letterbox", "normal", normal, {3, 3});
  require_contiguous("letterbox", "normal", normal);
  Normalisation named;
  std::copy_n(normal.data, 3, named.scale);
  std::copy_n(normal.data + 3, 3, named.shift);
  std::copy_n(normal.data + 6, 3, named.empty);
  cpu::letterbox({plane, chroma, format, colours}, {window[0], window[1], window[2], window[3]},
                 named, out, threads);
}

void decode(const AnyView<3>& logits, const AnyView<3>& boxes, bool no_object,
            const TensorView<float, 2>& scores, const TensorView<std::int64_t, 2>& labels,
            const TensorView<float, 3>& corners, int threads) {
  cpu::decode(logits, boxes, no_object ? Decoding::queries : Decoding::pairs, scores, labels,
              corners, threads);
}

}  // namespace

void bind_run(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  py::enum_<PixelFormat>(m, "PixelFormat")
      .value("rgb", PixelFormat::rgb)
      .value("bgr", PixelFormat::bgr)
      .value("rgba", PixelFormat::rgba)
      .value("bgra", PixelFormat::bgra)
      .value("grey", PixelFormat::grey)
      .value("nv12", PixelFormat::nv12)
      .value("yuyv", PixelFormat::yuyv);
  py::enum_<Colours>(m, "Colours")
      .value("bt601", Colours::bt601)
      .value("bt601_full", Colours::bt601_full)
      .value("bt709", Colours::bt709)
      .value("bt709_full", Colours::bt709_full);
  m.def("decode", &decode, py::arg("logits"), py::arg("boxes"), py::arg("no_object"),
        py::arg("scores"), py::arg("labels"), py::arg("corners"), py::arg("threads"), Release());
  m.def("letterbox", &letterbox, py::arg("plane"), py::arg("chroma").none(true), py::arg("layout"),
        py::arg("colours"), py::arg("window"), py::arg("normal"), py::arg("out"),
        py::arg("threads"), Release());
}

}  // namespace detrx
