#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "bindings/bind.h"
#include "bindings/tensor_caster.h"
#include "cuda/attention.h"
#include "cuda/decode.h"
#include "cuda/deform_attn.h"
#include "cuda/dmabuf.h"
#include "cuda/frame_graph.h"
#include "cuda/handles.h"
#include "cuda/layer_norm.h"
#include "cuda/letterbox.h"

namespace py = pybind11;

namespace detrx {
namespace {

void decode(const AnyView<3>& logits, const AnyView<3>& boxes, bool no_object,
            const AnyView<2>& scores, const AnyView<2>& labels, const AnyView<3>& corners,
            const AnyView<1>& workspace, std::int64_t stream) {
  cuda::decode(logits, boxes, no_object ? Decoding::queries : Decoding::pairs, scores, labels,
               corners, workspace, stream);
}

std::int64_t decode_workspace(std::int64_t images, std::int64_t queries, bool no_object) {
  return cuda::decode_workspace(images, queries, no_object ? Decoding::queries : Decoding::pairs);
}

using Four = std::array<std::int64_t, 4>;  // top, left, height, width

Window window_of(const Four& window) { return {window[0], window[1], window[2], window[3]}; }

// On the host: (rows and columns of the window, 3).
void letterbox_taps(const Four& window, std::int64_t height, std::int64_t width,
                    const TensorView<std::int32_t, 2>& taps) {
  require_shape("letterbox_taps", "taps", taps, {cuda::letterbox_taps(window_of(window)), 3});
  require_contiguous("letterbox_taps", "taps", taps);
  cuda::letterbox_taps(window_of(window), height, width, reinterpret_cast<Tap*>(taps.data));
}

// Of scale, shift and empty of red, green and blue.
Normalisation normalisation_of(const std::array<float, 9>& normal) {
  Normalisation named;
  std::copy_n(normal.data(), 3, named.scale);
  std::copy_n(normal.data() + 3, 3, named.shift);
  std::copy_n(normal.data() + 6, 3, named.empty);
  return named;
}

void letterbox(const AnyView<3>& plane, const std::optional<AnyView<3>>& chroma, PixelFormat layout,
               Colours colours, const Four& window, const std::array<float, 9>& normal,
               const AnyView<2>& taps, const AnyView<3>& out, std::int64_t stream) {
  cuda::letterbox(plane, chroma, layout, colours, window_of(window), normalisation_of(normal), taps,
                  out, stream);
}

using cuda::FrameGraph;
using Pair = std::array<std::int64_t, 2>;
using Plane = TensorView<const std::uint8_t, 3>;

// Pointers and the stream as numbers.
using Number = std::intptr_t;
using NamedEngine = std::function<void(Number, const std::vector<Number>&, Number)>;

std::unique_ptr<FrameGraph> make_frames(const NamedEngine& engine, const Pair& canvas,
                                        const std::array<float, 9>& normal, bool half,
                                        const std::vector<std::size_t>& answers,
                                        std::size_t picture, int slots, int device, Number stream) {
  cuda::FramePlan plan;
  plan.canvas_height = canvas[0];
  plan.canvas_width = canvas[1];
  plan.normal = normalisation_of(normal);
  plan.pixels = half ? Dtype::float16 : Dtype::float32;
  plan.answers = answers;
  plan.picture = picture;
  const auto number = [](auto* pointer) { return reinterpret_cast<Number>(pointer); };
  const auto named = [&](void* pixels, const std::vector<void*>& to, cuda::Stream on) {
    std::vector<Number> numbers;
    for (void* const one : to) numbers.push_back(number(one));
    engine(number(pixels), numbers, number(on));
  };
  return std::make_unique<FrameGraph>(cuda::open_frame_device(device, cuda::stream_of(stream)),
                                      plan, slots, named);
}

void put(FrameGraph& frames, int slot, const Plane& plane, const std::optional<Plane>& chroma,
         PixelFormat layout, Colours colours, const Four& window) {
  frames.put(slot, cuda::HostPicture{plane, chroma, layout, colours}, window_of(window));
}

// What the TensorRT plugins compute, for tests and benchmarks without TensorRT.
void bind_nodes(py::module_& m) {
  using Release = py::call_guard<py::gil_scoped_release>;
  using View = AnyView<2>;
  using OfViews = void (*)(const View&, const std::optional<View>&, const AnyView<1>&,
                           const AnyView<1>&, float, const View&, std::int64_t);
  m.def("layer_norm", static_cast<OfViews>(&cuda::layer_norm), py::arg("x"),
        py::arg("residual").none(true), py::arg("gain"), py::arg("bias"), py::arg("epsilon"),
        py::arg("out"), py::arg("stream"), Release());
  using Attend =
      void (*)(const AnyView<3>&, const AnyView<3>&, const AnyView<3>&, const std::optional<View>&,
               std::int64_t, float, const AnyView<3>&, std::int64_t);
  m.def("attention", static_cast<Attend>(&cuda::attention), py::arg("query"), py::arg("key"),
        py::arg("value"), py::arg("bias").none(true), py::arg("heads"), py::arg("scale"),
        py::arg("out"), py::arg("stream"), Release());
  using Sides = std::vector<std::int64_t>;
  using Sample = void (*)(const AnyView<4>&, const Sides&, const AnyView<3>&, const AnyView<3>&,
                          const AnyView<3>&, const Sides&, float, const AnyView<3>&, std::int64_t);
  m.def("deform_attn_of_boxes", static_cast<Sample>(&cuda::deform_attn_of_boxes), py::arg("values"),
        py::arg("sides"), py::arg("boxes"), py::arg("offsets"), py::arg("logits"),
        py::arg("points"), py::arg("reach"), py::arg("out"), py::arg("stream"), Release());
  m.def("decode_node", &cuda::decode_node, py::arg("logits"), py::arg("boxes"), py::arg("each"),
        py::arg("no_object"), py::arg("columns"), py::arg("scores"), py::arg("labels"),
        py::arg("corners"), py::arg("queries"), py::arg("workspace"), py::arg("stream"), Release());
}

#if defined(DETRX_WITH_NVMM)
// size is height and width; offset and pitch are of the plane and of nv12's chroma, in bytes.
void put_dmabuf(FrameGraph& frames, int slot, cuda::DmabufReader& reader, int fd,
                PixelFormat layout, Colours colours, const Pair& size, const Pair& offset,
                const Pair& pitch, const Four& window) {
  const cuda::Dmabuf buffer{fd, layout, colours, size[0], size[1], offset, pitch};
  frames.put(slot, reader.map(buffer), window_of(window));
}
#endif

}  // namespace

void bind_cuda_run(py::module_& m) {
  bind_nodes(m);
  using Release = py::call_guard<py::gil_scoped_release>;
  m.def("decode", &decode, py::arg("logits"), py::arg("boxes"), py::arg("no_object"),
        py::arg("scores"), py::arg("labels"), py::arg("corners"), py::arg("workspace"),
        py::arg("stream"), Release());
  m.def("decode_workspace", &decode_workspace, py::arg("images"), py::arg("queries"),
        py::arg("no_object"));
  m.def("letterbox", &letterbox, py::arg("plane"), py::arg("chroma").none(true), py::arg("layout"),
        py::arg("colours"), py::arg("window"), py::arg("normal"), py::arg("taps"), py::arg("out"),
        py::arg("stream"), Release());
  m.def("letterbox_taps", &letterbox_taps, py::arg("window"), py::arg("height"), py::arg("width"),
        py::arg("taps"));
  py::class_<FrameGraph> frames(m, "FrameGraph", py::module_local());
  frames
      .def(py::init(&make_frames), py::arg("engine"), py::kw_only(), py::arg("canvas"),
           py::arg("normal"), py::arg("half"), py::arg("answers"), py::arg("picture"),
           py::arg("slots"), py::arg("device"), py::arg("stream"))
      .def_property_readonly("slots", &FrameGraph::slots)
      .def("begin", &FrameGraph::begin, Release())
      .def("put", &put, py::arg("slot"), py::arg("plane"), py::arg("chroma").none(true),
           py::arg("layout"), py::arg("colours"), py::arg("window"), Release())
      .def("submit", &FrameGraph::submit, py::arg("slot"), Release())
      .def("cancel", &FrameGraph::cancel, py::arg("slot"), Release())
      .def("take", &FrameGraph::take, py::arg("slot"), py::arg("answers"), Release())
      .def("close", &FrameGraph::close, Release());
#if defined(DETRX_WITH_NVMM)
  py::class_<cuda::DmabufReader>(m, "DmabufReader", py::module_local())
      .def(py::init<int>(), py::arg("device"))
      .def("forget", &cuda::DmabufReader::forget, py::arg("fd"));
  frames.def("put_dmabuf", &put_dmabuf, py::arg("slot"), py::arg("reader"), py::arg("fd"),
             py::arg("layout"), py::arg("colours"), py::arg("size"), py::arg("offset"),
             py::arg("pitch"), py::arg("window"));
#endif
}

}  // namespace detrx
