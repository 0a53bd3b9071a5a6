#include "cpu/mask_winners.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/inline.h"
#include "cpu/parallel.h"

namespace detrx::cpu {
namespace {

// Rows of the picture that a thread takes at a time.
constexpr std::int64_t kRows = 32;

// Between which two cells a place lies, and how much each counts.
struct Place {
  std::int32_t low, high;
  float low_share, high_share;
};

struct Problem {
  std::int64_t masks, height, width, rows, columns;
  const float* logits;
  std::vector<Place> down;
  // Those of the columns, apart so that they are read in vectors.
  std::vector<std::int32_t> low, high;
  std::vector<float> low_share, high_share;
  std::int32_t* best;
};

Place place_of(float at, std::int64_t length) {
  const auto low = static_cast<std::int32_t>(at);
  const auto high = std::min(low + 1, static_cast<std::int32_t>(length - 1));
  const float share = at - static_cast<float>(low);
  return {low, high, 1.0F - share, share};
}

// One row of a mask, read at every column.
DETRX_INLINE void widen(const Problem& p, const float* cells, float* out) {
  const std::int32_t* const low = p.low.data();
  const std::int32_t* const high = p.high.data();
  const float* const low_share = p.low_share.data();
  const float* const high_share = p.high_share.data();
  for (std::int64_t x = 0; x < p.columns; ++x) {
    out[x] = low_share[x] * cells[low[x]] + high_share[x] * cells[high[x]];
  }
}

// Enters a mask where it is higher than all before it.
DETRX_INLINE void contend(const Problem& p, std::int32_t mask, const Place& place,
                          const float* above, const float* below, float* top, std::int32_t* best) {
  for (std::int64_t x = 0; x < p.columns; ++x) {
    const float here = place.low_share * above[x] + place.high_share * below[x];
    const bool wins = here > top[x];
    top[x] = wins ? here : top[x];
    best[x] = wins ? mask : best[x];
  }
}

// The rows of one task, mask by mask: each row of cells is widened once for all rows between it and
// the next.
DETRX_INLINE void rows_of(const Problem& p, std::int64_t task) {
  const std::int64_t begin = task * kRows, end = std::min(p.rows, begin + kRows);
  std::vector<float> top(static_cast<std::size_t>((end - begin) * p.columns),
                         -std::numeric_limits<float>::infinity());
  std::fill(p.best + begin * p.columns, p.best + end * p.columns, 0);
  std::vector<float> lines(static_cast<std::size_t>(2 * p.columns));
  for (std::int64_t k = 0; k < p.masks; ++k) {
    const float* const cells = p.logits + k * p.height * p.width;
    float* above = lines.data();
    float* below = above + p.columns;
    std::int32_t is_above = -1, is_below = -1;
    for (std::int64_t y = begin; y < end; ++y) {
      const Place& place = p.down[static_cast<std::size_t>(y)];
      if (place.low != is_above) {
        if (place.low == is_below) {
          std::swap(above, below);
          std::swap(is_above, is_below);
        } else {
          widen(p, cells + place.low * p.width, above);
          is_above = place.low;
        }
      }
      if (place.high != is_below) {
        widen(p, cells + place.high * p.width, below);
        is_below = place.high;
      }
      contend(p, static_cast<std::int32_t>(k), place, above, below,
              top.data() + (y - begin) * p.columns, p.best + y * p.columns);
    }
  }
}

void rows_plain(const Problem& p, std::int64_t task) { rows_of(p, task); }
#if DETRX_X86
DETRX_AVX2 void rows_avx2(const Problem& p, std::int64_t task) { rows_of(p, task); }
DETRX_AVX512 void rows_avx512(const Problem& p, std::int64_t task) { rows_of(p, task); }
#endif

using Work = void (*)(const Problem&, std::int64_t);

Work worker() {
#if DETRX_X86
  if (has_avx512()) return rows_avx512;
  if (has_avx2()) return rows_avx2;
#endif
  return rows_plain;
}

void require_inside(const char* name, const TensorView<const float, 1>& places,
                    std::int64_t length) {
  for (std::int64_t i = 0; i < places.shape[0]; ++i) {
    const float at = places.data[i];
    require(at >= 0 && at <= static_cast<float>(length - 1), "[mask_winners] ", name,
            " must be in [0, ", length - 1, "], got ", at, " at ", i);
  }
}

}  // namespace

void mask_winners(const TensorView<const float, 3>& logits, const TensorView<const float, 1>& rows,
                  const TensorView<const float, 1>& columns,
                  const TensorView<std::int32_t, 2>& best, int threads) {
  const auto [masks, height, width] = logits.shape;
  require(masks >= 1 && height >= 1 && width >= 1,
          "[mask_winners] logits must hold at least one mask of one cell, got ",
          text(logits.shape));
  require_shape("mask_winners", "best", best, {rows.shape[0], columns.shape[0]});
  require_contiguous("mask_winners", "logits", logits);
  require_contiguous("mask_winners", "rows", rows);
  require_contiguous("mask_winners", "columns", columns);
  require_contiguous("mask_winners", "best", best);
  require_inside("rows", rows, height);
  require_inside("columns", columns, width);
  require(threads >= 1, "[mask_winners] threads must be >= 1, got ", threads);
  Problem p{};
  p.masks = masks;
  p.height = height;
  p.width = width;
  p.rows = rows.shape[0];
  p.columns = columns.shape[0];
  p.logits = logits.data;
  p.best = best.data;
  for (std::int64_t y = 0; y < p.rows; ++y) p.down.push_back(place_of(rows.data[y], height));
  for (std::int64_t x = 0; x < p.columns; ++x) {
    const Place place = place_of(columns.data[x], width);
    p.low.push_back(place.low);
    p.high.push_back(place.high);
    p.low_share.push_back(place.low_share);
    p.high_share.push_back(place.high_share);
  }
  const Work work = worker();
  parallel((p.rows + kRows - 1) / kRows, threads, [&](std::int64_t task) { work(p, task); });
}

}  // namespace detrx::cpu
