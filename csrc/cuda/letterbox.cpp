#include "cuda/letterbox.h"

#include "cuda/arguments.h"

namespace detrx::cuda {
namespace {

static_assert(sizeof(Tap) == 12, "a tap is three int32 to who keeps it");

int bytes_of(PixelFormat format) {
  switch (format) {
    case PixelFormat::rgb:
    case PixelFormat::bgr:
      return 3;
    case PixelFormat::rgba:
    case PixelFormat::bgra:
      return 4;
    case PixelFormat::yuyv:
      return 2;
    default:
      return 1;
  }
}

// The pointer and the pitch of a plane of adjacent pixels.
const std::uint8_t* read_plane(const char* name, const AnyView<3>& plane, int device,
                               std::int64_t channels, std::int64_t& pitch) {
  require_device("letterbox", name, plane, kDevice);
  require(plane.dtype == Dtype::uint8 && plane.shape[2] == channels && plane.size() > 0,
          "[letterbox] ", name, " must be uint8 (H, W, ", channels, "), got ", text(plane.dtype),
          " ", text(plane.shape));
  require(plane.device_index == device, "[letterbox] ", name, " must lie on device ", device);
  const bool adjacent = (plane.shape[2] == 1 || plane.stride[2] == 1) &&
                        (plane.shape[1] == 1 || plane.stride[1] == channels);
  require(adjacent, "[letterbox] the pixels of a row of ", name, " must be adjacent");
  pitch = plane.stride[0];
  return static_cast<const std::uint8_t*>(plane.data);
}

DevicePicture read_picture(const AnyView<3>& plane, const std::optional<AnyView<3>>& chroma,
                           PixelFormat format, Colours colours, int device) {
  DevicePicture p{};
  p.plane = read_plane("plane", plane, device, bytes_of(format), p.pitch);
  p.height = plane.shape[0];
  p.width = plane.shape[1];
  p.format = format;
  p.colours = colours;
  require(chroma.has_value() == (format == PixelFormat::nv12),
          "[letterbox] nv12 has a plane of chroma, and no other format");
  require(format != PixelFormat::yuyv || p.width % 2 == 0,
          "[letterbox] the width of yuyv must be even, got ", p.width);
  if (!chroma) return p;
  require_shape("letterbox", "chroma", *chroma, {(p.height + 1) / 2, (p.width + 1) / 2, 2});
  p.chroma = read_plane("chroma", *chroma, device, 2, p.chroma_pitch);
  return p;
}

}  // namespace

std::int64_t letterbox_taps(const Window& window) { return window.height + window.width; }

void letterbox_taps(const Window& window, std::int64_t height, std::int64_t width, Tap* taps) {
  for (std::int64_t y = 0; y < window.height; ++y) {
    *taps++ = find_tap(y, window.height, height, false);
  }
  for (std::int64_t x = 0; x < window.width; ++x) {
    *taps++ = find_tap(x, window.width, width, true);
  }
}

namespace {

template <typename Problem>
void launch_as(const Problem& problem, Dtype out, Stream stream) {
  if (out == Dtype::float32) return launch_letterbox<float>(problem, stream);
  if (out == Dtype::float16) return launch_letterbox<Half>(problem, stream);
  require(out == Dtype::uint8, "[letterbox] out must be float32, float16 or uint8, got ",
          text(out));
  launch_letterbox<std::uint8_t>(problem, stream);
}

}  // namespace

void letterbox(LetterboxProblem problem, const Tap* taps, Dtype out, Stream stream) {
  problem.rows = taps;
  problem.columns = taps + problem.window.height;
  launch_as(problem, out, stream);
}

void letterbox(const LetterboxPlace& place, Dtype out, Stream stream) {
  launch_as(place, out, stream);
}

void letterbox(const AnyView<3>& plane, const std::optional<AnyView<3>>& chroma, PixelFormat format,
               Colours colours, const Window& window, const Normalisation& normal,
               const AnyView<2>& taps, const AnyView<3>& out, std::int64_t stream) {
  const Arguments arguments("letterbox", plane.device_index);
  LetterboxProblem p{};
  p.picture = read_picture(plane, chroma, format, colours, plane.device_index);
  p.window = window;
  p.normal = normal;
  p.height = out.shape[1];
  p.width = out.shape[2];
  p.out = arguments.memory("out", out, {3, p.height, p.width});
  const bool fits = window.top >= 0 && window.left >= 0 && window.height > 0 && window.width > 0 &&
                    window.top + window.height <= p.height && window.left + window.width <= p.width;
  require(fits, "[letterbox] the picture must lie within the canvas ", text(out.shape));
  const auto* const table = reinterpret_cast<const Tap*>(
      arguments.items<std::int32_t>("taps", taps, {letterbox_taps(window), 3}));
  letterbox(p, table, out.dtype, stream_of(stream));
}

}  // namespace detrx::cuda
