#include "core/half.h"
#include "cuda/letterboxing.h"
#include "cuda/shape.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 128;

__device__ inline std::int32_t word(std::int32_t first, std::int32_t second, std::int32_t third) {
  return first | second << 8 | third << 16;
}

// Red, green and blue of a pixel in texture memory, the first lowest.
__device__ inline std::int32_t read_texture(const DevicePicture& p, std::int32_t y,
                                            std::int32_t x) {
  const float row = static_cast<float>(y) + 0.5F, column = static_cast<float>(x) + 0.5F;
  if (p.format == PixelFormat::nv12) {
    const auto pair = tex2D<uchar2>(p.chroma_texture, static_cast<float>(x / 2) + 0.5F,
                                    static_cast<float>(y / 2) + 0.5F);
    return rgb_word(word(tex2D<unsigned char>(p.texture, column, row), pair.x, pair.y),
                    weights_of(p.colours));
  }
  if (p.format == PixelFormat::grey) {
    const std::int32_t level = tex2D<unsigned char>(p.texture, column, row);
    return word(level, level, level);
  }
  const auto four = tex2D<uchar4>(p.texture, column, row);
  const bool swapped = p.format == PixelFormat::bgr || p.format == PixelFormat::bgra;
  return swapped ? word(four.z, four.y, four.x) : word(four.x, four.y, four.z);
}

__device__ inline std::int32_t read_memory(const DevicePicture& p, std::int32_t y, std::int32_t x) {
  const std::uint8_t* const row = p.plane + y * p.pitch;
  if (p.format == PixelFormat::nv12) {
    const std::uint8_t* const pair = p.chroma + y / 2 * p.chroma_pitch + x / 2 * 2;
    return rgb_word(word(row[x], pair[0], pair[1]), weights_of(p.colours));
  }
  if (p.format == PixelFormat::yuyv) {
    const std::uint8_t* const four = row + x / 2 * 4;
    return rgb_word(word(row[2 * x], four[1], four[3]), weights_of(p.colours));
  }
  if (p.format == PixelFormat::grey) return word(row[x], row[x], row[x]);
  const bool three = p.format == PixelFormat::rgb || p.format == PixelFormat::bgr;
  const std::uint8_t* const pixel = row + x * (three ? 3 : 4);
  const bool swapped = p.format == PixelFormat::bgr || p.format == PixelFormat::bgra;
  return swapped ? word(pixel[2], pixel[1], pixel[0]) : word(pixel[0], pixel[1], pixel[2]);
}

__device__ inline std::int32_t read_pixel(const DevicePicture& p, std::int32_t y, std::int32_t x) {
  return p.plane != nullptr ? read_memory(p, y, x) : read_texture(p, y, x);
}

// A level as an item of the canvas: a product is rounded before it is added to, as NumPy does it.
template <typename T>
struct Item {
  __device__ static T of(std::int32_t level, float scale, float shift) {
#if defined(__CUDA_ARCH__)
    return from_float<T>(__fadd_rn(__fmul_rn(static_cast<float>(level), scale), shift));
#else
    const volatile float product = static_cast<float>(level) * scale;
    return from_float<T>(product + shift);
#endif
  }
  __device__ static T empty(float value) { return from_float<T>(value); }
};
template <>
struct Item<std::uint8_t> {
  __device__ static std::uint8_t of(std::int32_t level, float, float) {
    return static_cast<std::uint8_t>(level);
  }
  __device__ static std::uint8_t empty(float value) { return static_cast<std::uint8_t>(value); }
};

// One thread a pixel of the canvas.
template <typename T>
__device__ inline void lay_pixel(const LetterboxProblem& p) {
  const std::int64_t x = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const auto y = static_cast<std::int64_t>(blockIdx.y);
  if (x >= p.width) return;
  const std::int64_t size = p.height * p.width;
  T* const out = static_cast<T*>(p.out) + y * p.width + x;
  const std::int64_t row = y - p.window.top, column = x - p.window.left;
  if (row < 0 || row >= p.window.height || column < 0 || column >= p.window.width) {
    for (int c = 0; c < 3; ++c) out[c * size] = Item<T>::empty(p.normal.empty[c]);
    return;
  }
  const Tap high = p.rows[row], wide = p.columns[column];
  std::int32_t corner[4] = {};
  for (int k = 0; k < 4; ++k) {
    const bool counts = (k / 2 ? high.second_weight : high.first_weight) != 0 &&
                        (k % 2 ? wide.second_weight : wide.first_weight) != 0;
    if (!counts) continue;
    corner[k] =
        read_pixel(p.picture, k / 2 ? high.second : high.first, k % 2 ? wide.second : wide.first);
  }
  for (int c = 0; c < 3; ++c) {
    std::int32_t sums[2];
    for (int k = 0; k < 2; ++k) {
      sums[k] = across(corner[2 * k] >> 8 * c & 255, corner[2 * k + 1] >> 8 * c & 255,
                       wide.first_weight, wide.second_weight);
    }
    const std::int32_t level = down(sums[0], sums[1], high.first_weight, high.second_weight);
    out[c * size] = Item<T>::of(level, p.normal.scale[c], p.normal.shift[c]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) letterbox_kernel(const LetterboxProblem p) {
  lay_pixel<T>(p);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) letterbox_place_kernel(const LetterboxPlace p) {
  lay_pixel<T>(*p.problem);
}

}  // namespace

template <typename T>
void launch_letterbox(const LetterboxProblem& p, Stream stream) {
  const Grid grid{divide_up(p.width, kThreads), p.height, 1};
  launch("letterbox", letterbox_kernel<T>, grid, kThreads, 0, stream, p);
}

template <typename T>
void launch_letterbox(const LetterboxPlace& p, Stream stream) {
  const Grid grid{divide_up(p.width, kThreads), p.height, 1};
  launch("letterbox", letterbox_place_kernel<T>, grid, kThreads, 0, stream, p);
}

#define DETRX_LETTERBOX(T)                                            \
  template void launch_letterbox<T>(const LetterboxProblem&, Stream); \
  template void launch_letterbox<T>(const LetterboxPlace&, Stream);
DETRX_LETTERBOX(float)
DETRX_LETTERBOX(Half)
DETRX_LETTERBOX(std::uint8_t)
#undef DETRX_LETTERBOX

}  // namespace detrx::cuda
