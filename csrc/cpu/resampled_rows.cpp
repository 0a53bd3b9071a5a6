#include "cpu/resampled_rows.h"

#include <algorithm>
#include <cstring>

#include "core/buffer.h"
#if DETRX_X86
#include <immintrin.h>
#endif

namespace detrx::cpu {
namespace {

constexpr std::int64_t kStep = 4;  // columns that a kernel takes at a time
constexpr std::int64_t kRead = 8;  // bytes that it reads of a column

// Two pixels, `apart` bytes from each other, and which bytes of them are red, green and blue.
struct Layout {
  std::int64_t apart;
  const int* order;
};

// Columns [from, to) of a row whose first byte lies `skipped` bytes before `row`.
struct Part {
  const std::uint8_t* row;
  std::int64_t skipped, from, to;
};

void resample_plain(const Part& part, const Columns& columns, const Layout& layout,
                    std::int16_t* to) {
  for (std::int64_t i = part.from; i < part.to; ++i) {
    const std::uint8_t* const pixel =
        part.row + (columns.offset[static_cast<std::size_t>(i)] - part.skipped);
    const std::int16_t* const weights = columns.weights.data() + 8 * i;
    for (int c = 0; c < 3; ++c) {
      const std::uint8_t* const byte = pixel + layout.order[c];
      to[4 * i + c] =
          static_cast<std::int16_t>(across(byte[0], byte[layout.apart], weights[0], weights[1]));
    }
    to[4 * i + 3] = 0;
  }
}

#if DETRX_X86
// Four columns at a time: eight bytes hold both pixels of a column; red, green and blue of the two
// go side by side, each pair is weighed and added by one instruction.
DETRX_AVX2 void resample_avx2(const Part& part, const Columns& columns, const Layout& layout,
                              std::int16_t* to) {
  alignas(16) char places[16];
  std::memset(places, -1, sizeof places);  // a zero
  for (int c = 0; c < 3; ++c) {
    places[4 * c] = static_cast<char>(layout.order[c]);
    places[4 * c + 2] = static_cast<char>(layout.order[c] + layout.apart);
  }
  const __m256i spread =
      _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(places)));
  const std::int32_t* const offset = columns.offset.data();
  const std::uint8_t* const row = part.row - part.skipped;
  const auto read = [row](std::int32_t low, std::int32_t high)
                        __attribute__((target("avx2,fma"), always_inline)) {
                          const auto* const a = reinterpret_cast<const __m128i*>(row + low);
                          const auto* const b = reinterpret_cast<const __m128i*>(row + high);
                          return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadl_epi64(a)),
                                                         _mm_loadl_epi64(b), 1);
                        };
  for (std::int64_t i = part.from; i < part.to; i += kStep) {
    const auto* const weights = reinterpret_cast<const __m256i*>(columns.weights.data() + 8 * i);
    // Packing takes halves in turns, so the columns go in as 0, 2 and 1, 3.
    const __m256i w01 = _mm256_loadu_si256(weights), w23 = _mm256_loadu_si256(weights + 1);
    const __m256i even = _mm256_shuffle_epi8(read(offset[i], offset[i + 2]), spread);
    const __m256i odd = _mm256_shuffle_epi8(read(offset[i + 1], offset[i + 3]), spread);
    const __m256i even_sums = _mm256_madd_epi16(even, _mm256_permute2x128_si256(w01, w23, 0x20));
    const __m256i odd_sums = _mm256_madd_epi16(odd, _mm256_permute2x128_si256(w01, w23, 0x31));
    const __m256i both =
        _mm256_packs_epi32(_mm256_srai_epi32(even_sums, 4), _mm256_srai_epi32(odd_sums, 4));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 4 * i), both);
  }
}
#endif

void resample(const Part& part, const Columns& columns, const Layout& layout, std::int16_t* to) {
#if DETRX_X86
  if (has_avx2()) return resample_avx2(part, columns, layout, to);
#endif
  resample_plain(part, columns, layout, to);
}

// Words of y, u and v become red, green and blue.
DETRX_INLINE void colour_body(std::int32_t* words, std::int64_t count, YuvWeights weights) {
  for (std::int64_t i = 0; i < count; ++i) words[i] = rgb_word(words[i], weights);
}

#if DETRX_X86
DETRX_AVX2 void colour_avx2(std::int32_t* words, std::int64_t count, YuvWeights weights) {
  colour_body(words, count, weights);
}
#endif

void colour(std::int32_t* words, std::int64_t count, YuvWeights weights) {
#if DETRX_X86
  if (has_avx2()) return colour_avx2(words, count, weights);
#endif
  colour_body(words, count, weights);
}

struct Scratch {
  Buffer<std::int32_t> words;
  Buffer<std::uint8_t> tail;
  Buffer<std::int16_t> rows;
};

}  // namespace

Columns::Columns(const PixelRows& pixels, std::int64_t wanted)
    : count(wanted), padded((wanted + kStep - 1) / kStep * kStep), safe(padded) {
  const auto places = static_cast<std::size_t>(padded);
  for (auto* part : {&first, &second, &offset}) part->resize(places);
  weights.resize(8 * places);
  for (std::size_t i = 0; i < places; ++i) {
    const std::int64_t at = std::min(static_cast<std::int64_t>(i), wanted - 1);
    const Tap tap = find_tap(at, wanted, pixels.width(), true);
    first[i] = tap.first;
    second[i] = tap.second;
    const auto from = pixels.adjacent() ? tap.first * pixels.step() : kRead * at;
    offset[i] = static_cast<std::int32_t>(from);
    for (std::size_t k = 0; k < 4; ++k) {
      weights[8 * i + 2 * k] = tap.first_weight;
      weights[8 * i + 2 * k + 1] = tap.second_weight;
    }
  }
  if (!pixels.adjacent()) return;
  const auto unsafe = std::partition_point(offset.begin(), offset.end(), [&](std::int32_t from) {
    return from + kRead <= pixels.bytes();
  });
  safe = (unsafe - offset.begin()) / kStep * kStep;
}

ResampledRows::ResampledRows(const PixelRows& pixels, const Columns& columns)
    : pixels_(pixels), columns_(columns) {
  auto& scratch = of_this_thread<Scratch>();
  words_ = scratch.words.reserve(2 * columns.padded);
  rows_ = scratch.rows.reserve(2 * 4 * columns.padded);
  const bool whole = !pixels.adjacent() || columns.safe == columns.padded;
  const std::int64_t before = whole ? 0 : columns.offset[static_cast<std::size_t>(columns.safe)];
  tail_ = scratch.tail.reserve(whole ? 0 : pixels.bytes() - before + kRead);
}

const std::int16_t* ResampledRows::get(std::int64_t y, std::int64_t kept) {
  const std::int64_t size = 4 * columns_.padded;
  for (int slot = 0; slot < 2; ++slot) {
    if (held_[slot] == y) return rows_ + slot * size;
  }
  const int slot = held_[0] == kept ? 1 : 0;
  make(y, rows_ + slot * size);
  held_[slot] = y;
  return rows_ + slot * size;
}

void ResampledRows::make(std::int64_t y, std::int16_t* to) const {
  const std::int64_t padded = columns_.padded, safe = columns_.safe;
  if (!pixels_.adjacent()) {
    pixels_.read(y, columns_.first.data(), padded, words_);
    pixels_.read(y, columns_.second.data(), padded, words_ + 1);
    if (pixels_.luminous()) colour(words_, 2 * padded, weights_of(pixels_.colours()));
    const auto* const row = reinterpret_cast<const std::uint8_t*>(words_);
    return resample({row, 0, 0, padded}, columns_, {4, pixels_.order()}, to);
  }
  const Layout layout{pixels_.step(), pixels_.order()};
  const std::uint8_t* const row = pixels_.row(y);
  resample({row, 0, 0, safe}, columns_, layout, to);
  if (safe == padded) return;
  const std::int64_t skipped = columns_.offset[static_cast<std::size_t>(safe)];
  std::memcpy(tail_, row + skipped, static_cast<std::size_t>(pixels_.bytes() - skipped));
  resample({tail_, skipped, safe, padded}, columns_, layout, to);
}

}  // namespace detrx::cpu
