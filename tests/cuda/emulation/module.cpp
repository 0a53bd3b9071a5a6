// The functions of detrx._C.cuda over the emulator, as a module of their own.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "bindings/bind.h"
#include "bindings/tensor_caster.h"
#include "core/box.h"
#include "core/error.h"
#include "core/focal.h"
#include "core/picture.h"
#include "cuda/letterbox.h"
#include "emulator.h"

namespace {

using Plane = detrx::TensorView<const unsigned char, 3>;

// The letterbox over textures of these planes, which on a device come from a decoder.
void letterbox_of_textures(const Plane& plane, const std::optional<Plane>& chroma,
                           detrx::PixelFormat layout, detrx::Colours colours,
                           const std::array<std::int64_t, 4>& window,
                           const std::array<float, 9>& normal,
                           const detrx::TensorView<std::int32_t, 2>& taps,
                           const detrx::TensorView<float, 3>& out) {
  const auto texture_of = [](const Plane& of) {
    return emulator::Texture{of.data, of.stride[0], of.shape[0], of.shape[1]};
  };
  const emulator::Texture first = texture_of(plane);
  const emulator::Texture second = chroma ? texture_of(*chroma) : first;
  detrx::cuda::LetterboxProblem p{};
  p.picture.texture = reinterpret_cast<unsigned long long>(&first);
  p.picture.chroma_texture = reinterpret_cast<unsigned long long>(&second);
  p.picture.height = plane.shape[0];
  p.picture.width = plane.shape[1];
  p.picture.format = layout;
  p.picture.colours = colours;
  p.window = {window[0], window[1], window[2], window[3]};
  std::copy_n(normal.data(), 3, p.normal.scale);
  std::copy_n(normal.data() + 3, 3, p.normal.shift);
  std::copy_n(normal.data() + 6, 3, p.normal.empty);
  p.out = out.data;
  p.height = out.shape[1];
  p.width = out.shape[2];
  detrx::cuda::letterbox(p, reinterpret_cast<const detrx::Tap*>(taps.data), detrx::Dtype::float32,
                         nullptr);
}

}  // namespace

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
  using detrx::PixelFormat;
  pybind11::enum_<PixelFormat> layout(m, "PixelFormat", pybind11::module_local());
  layout.value("rgb", PixelFormat::rgb).value("bgr", PixelFormat::bgr);
  layout.value("rgba", PixelFormat::rgba).value("bgra", PixelFormat::bgra);
  layout.value("grey", PixelFormat::grey).value("nv12", PixelFormat::nv12);
  layout.value("yuyv", PixelFormat::yuyv);
  using detrx::Colours;
  pybind11::enum_<Colours> colours(m, "Colours", pybind11::module_local());
  colours.value("bt601", Colours::bt601).value("bt709_full", Colours::bt709_full);
  // An engine's work of Python, captured with the kernels.
  m.def("enqueue", [](const pybind11::function& work) {
    const auto held = std::make_shared<pybind11::function>(work);
    emulator::enqueue([held] {
      const pybind11::gil_scoped_acquire gil;
      (*held)();
    });
  });
  m.def("allocations", [] { return emulator::allocations; });
  m.def("fail_launches_after", [](int count) { emulator::launches_left = count; });
  m.def("shuffle", [](unsigned seed) { emulator::seed = seed; });
  m.def("letterbox_of_textures", &letterbox_of_textures);
  detrx::bind_cuda(m);
}
