#include "cpu/letterbox.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "core/buffer.h"
#include "core/half.h"
#include "cpu/parallel.h"
#include "cpu/pixel_rows.h"
#include "cpu/resampled_rows.h"

namespace detrx::cpu {
namespace {

// Two rows become one of levels, four bytes a column.
struct DownRow {
  const std::int16_t *above, *below;
  const Tap& tap;
  std::int64_t count;
  std::uint8_t* levels;
};
DETRX_INLINE void run_body(const DownRow& row) {
  const std::int16_t* const __restrict above = row.above, * const __restrict below = row.below;
  std::uint8_t* const __restrict to = row.levels;
  const std::int16_t above_weight = row.tap.first_weight, below_weight = row.tap.second_weight;
  const std::int64_t count = row.count;  // bytes that are written might be this row's own
  for (std::int64_t i = 0; i < count; ++i) {
    to[i] = static_cast<std::uint8_t>(down(above[i], below[i], above_weight, below_weight));
  }
}

// One channel of the levels becomes items of the canvas.
template <typename T>
struct PlaneRow {
  const std::int32_t* words;
  int shift_right;
  std::int64_t count;
  T* to;
  float scale, shift;
  const Half* halves;  // of all 256 levels
};
template <typename T>
DETRX_INLINE void run_body(const PlaneRow<T>& row) {
  const std::int32_t* const __restrict words = row.words;
  T* const __restrict to = row.to;
  const float scale = row.scale, shift = row.shift;
  const int shift_right = row.shift_right;
  const Half* const __restrict halves = row.halves;
  const std::int64_t count = row.count;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t level = (words[i] >> shift_right) & 255;
    if constexpr (std::is_same_v<T, float>) to[i] = static_cast<float>(level) * scale + shift;
    if constexpr (std::is_same_v<T, Half>) to[i] = halves[level];
    if constexpr (std::is_same_v<T, std::uint8_t>) to[i] = static_cast<std::uint8_t>(level);
  }
}

template <typename Row>
void run_plain(const Row& row) {
  run_body(row);
}
#if DETRX_X86
template <typename Row>
DETRX_AVX2 void run_avx2(const Row& row) {
  run_body(row);
}
template <typename Row>
DETRX_AVX512 void run_avx512(const Row& row) {
  run_body(row);
}
#endif

template <typename Row>
void run(const Row& row) {
#if DETRX_X86
  if (has_avx512()) return run_avx512(row);
  if (has_avx2()) return run_avx2(row);
#endif
  run_plain(row);
}

template <typename T>
class Canvas {
 public:
  Canvas(const Window& window, const Normalisation& normal, const TensorView<T, 3>& out)
      : window_(window), normal_(normal), out_(out) {
    for (int c = 0; c < 3; ++c) {
      if constexpr (std::is_same_v<T, std::uint8_t>) {
        empty_[c] = static_cast<std::uint8_t>(std::clamp(normal.empty[c], 0.0F, 255.0F));
      } else {
        empty_[c] = from_float<T>(normal.empty[c]);
      }
      for (int level = 0; level < 256; ++level) {
        const float value = static_cast<float>(level) * normal.scale[c] + normal.shift[c];
        halves_[c][level] = from_float<Half>(value);
      }
    }
  }

  // Rows [from, to) of the canvas.
  void fill(const PixelRows& pixels, const Columns& columns, std::int64_t from,
            std::int64_t to) const {
    ResampledRows resampled(pixels, columns);
    std::int32_t* const words = of_this_thread<Buffer<std::int32_t>>().reserve(columns.padded);
    for (std::int64_t y = from; y < to; ++y) {
      const std::int64_t inside = y - window_.top;
      if (inside < 0 || inside >= window_.height) {
        for (int c = 0; c < 3; ++c) std::fill_n(row(c, y), out_.shape[2], empty_[c]);
        continue;
      }
      const Tap tap = find_tap(inside, window_.height, pixels.height(), false);
      const std::int64_t second = tap.second_weight == 0 ? tap.first : tap.second;
      const std::int16_t* const above = resampled.get(tap.first, second);
      const std::int16_t* const below = resampled.get(second, tap.first);
      run(DownRow{above, below, tap, 4 * columns.padded, reinterpret_cast<std::uint8_t*>(words)});
      for (int c = 0; c < 3; ++c) write(c, row(c, y), words);
    }
  }

 private:
  T* row(int channel, std::int64_t y) const noexcept {
    return out_.data + channel * out_.stride[0] + y * out_.stride[1];
  }

  void write(int channel, T* to, const std::int32_t* words) const {
    const std::int64_t end = window_.left + window_.width;
    std::fill(to, to + window_.left, empty_[channel]);
    std::fill(to + end, to + out_.shape[2], empty_[channel]);
    run(PlaneRow<T>{words, 8 * channel, window_.width, to + window_.left, normal_.scale[channel],
                    normal_.shift[channel], halves_[channel].data()});
  }

  const Window& window_;
  const Normalisation& normal_;
  TensorView<T, 3> out_;
  std::array<T, 3> empty_;
  std::array<std::array<Half, 256>, 3> halves_;
};

// Fewer pixels than this of a canvas are not worth waking a thread for.
constexpr std::int64_t kPixelsOfThread = 1 << 17;
constexpr std::int64_t kLeastRows = 16;

template <typename T>
void lay(const PixelRows& pixels, const Window& window, const Normalisation& normal,
         const TensorView<T, 3>& out, int threads) {
  const Canvas<T> canvas(window, normal, out);
  const Columns columns(pixels, window.width);
  const std::int64_t height = out.shape[1];
  const int useful = static_cast<int>(
      std::min<std::int64_t>(threads, 1 + height * out.shape[2] / kPixelsOfThread));
  const std::int64_t rows =
      useful == 1 ? height : std::max<std::int64_t>(kLeastRows, height / (4 * useful));
  parallel((height + rows - 1) / rows, useful, [&](std::int64_t i) {
    canvas.fill(pixels, columns, i * rows, std::min(height, (i + 1) * rows));
  });
}

void require_fit(const Window& window, const AnyView<3>& out) {
  require_device("letterbox", "out", out, Device::cpu);
  require(out.shape[0] == 3 && (out.stride[2] == 1 || out.shape[2] == 1),
          "[letterbox] out must have shape (3, h, w) and rows of adjacent items, got ",
          text(out.shape));
  const bool fits = window.top >= 0 && window.left >= 0 && window.height > 0 && window.width > 0 &&
                    window.top + window.height <= out.shape[1] &&
                    window.left + window.width <= out.shape[2];
  require(fits, "[letterbox] the picture must lie within the canvas ", text(out.shape), ", got ",
          window.height, " x ", window.width, " pixels at row ", window.top, ", column ",
          window.left);
}

}  // namespace

void letterbox(const PictureView& picture, const Window& window, const Normalisation& normal,
               const AnyView<3>& out, int threads) {
  const PixelRows pixels(picture);
  require_fit(window, out);
  if (out.dtype == Dtype::uint8) {
    lay(pixels, window, normal, out.items<std::uint8_t>(), threads);
  } else if (out.dtype == Dtype::float16) {
    lay(pixels, window, normal, out.items<Half>(), threads);
  } else {
    require(out.dtype == Dtype::float32, "[letterbox] out must be float32, float16 or uint8, got ",
            text(out.dtype));
    lay(pixels, window, normal, out.items<float>(), threads);
  }
}

}  // namespace detrx::cpu
