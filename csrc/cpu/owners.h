// What all losses share: which target each query owns, and sums that come out the same whatever
// the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/inline.h"
#include "core/tensor_view.h"

#if DETRX_X86
#include <emmintrin.h>
#endif

namespace detrx::cpu {

// Owners (L, B, Q), or (1, B, Q) for all stages alike: the target in [0, targets) that each query
// owns, or a negative number for none.
class Owners {
 public:
  Owners(const char* where, const TensorView<const std::int32_t, 3>& owners,
         const std::array<std::int64_t, 3>& shape, std::int64_t targets)
      : view_(owners), where_(where), targets_(targets) {
    const auto& [stages, images, queries] = shape;
    const bool fits = (owners.shape[0] == stages || owners.shape[0] == 1) &&
                      owners.shape[1] == images && owners.shape[2] == queries;
    require(fits, "[", where, "] owners must have shape ", text(shape), " or (1, ", images, ", ",
            queries, "), got ", text(owners.shape));
    require(queries <= 1 || owners.stride[2] == 1, "[", where,
            "] the queries of owners must be adjacent; pass owners.contiguous()");
    if (owners.shape[0] == 1) view_.stride[0] = 0;
  }

  const std::int32_t* row(std::int64_t stage, std::int64_t image) const noexcept {
    return view_.data + stage * view_.stride[0] + image * view_.stride[1];
  }

  // The first query from `from` on that owns a target, or `end`.
  static std::int64_t next(const std::int32_t* row, std::int64_t from, std::int64_t end) noexcept {
    while (from + kStep <= end && nobody(row + from)) from += kStep;
    while (from < end && row[from] < 0) ++from;
    return from;
  }

  // Lists the queries in [from, end) that own a target, at most kListed, and answers their number.
  static constexpr std::int64_t kListed = 64;
  static int list(const std::int32_t* row, std::int64_t from, std::int64_t end,
                  std::int64_t (&queries)[kListed]) noexcept {
    int count = 0;
    for (; from + kStep <= end; from += kStep) {
      for (unsigned left = owning(row + from); left != 0; left &= left - 1) {
        queries[count++] = from + __builtin_ctz(left);
      }
    }
    for (; from < end; ++from) {
      if (row[from] >= 0) queries[count++] = from;
    }
    return count;
  }

  std::int64_t target(const std::int32_t* row, std::int64_t query) const {
    const std::int64_t target = row[query];
    require(target < targets_, "[", where_, "] owners must be below ", targets_,
            ", the number of targets, got ", target);
    return target;
  }

 private:
  static constexpr std::int64_t kStep = 16;

  // A bit for each of kStep queries that owns a target. A negative number is one whose highest bit
  // is set, and narrowing keeps that.
  static unsigned owning(const std::int32_t* row) noexcept {
#if DETRX_X86
    const auto four = [&](int i) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 4 * i));
    };
    const __m128i low = _mm_packs_epi32(four(0), four(1)), high = _mm_packs_epi32(four(2), four(3));
    return 0xffffU & ~static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(low, high)));
#else
    unsigned bits = 0;
    for (unsigned i = 0; i < kStep; ++i) bits |= (row[i] >= 0 ? 1U : 0U) << i;
    return bits;
#endif
  }

  // Most queries own nothing.
  static bool nobody(const std::int32_t* row) noexcept { return owning(row) == 0; }

  TensorView<const std::int32_t, 3> view_;
  const char* where_;
  std::int64_t targets_;
};

// Queries [first, end) of one image of one stage: what one thread takes at a time.
struct Block {
  std::int64_t stage, image, first, end;
};

constexpr std::int64_t kBlock = 64;

inline std::int64_t blocks_of(std::int64_t queries) noexcept {
  return (queries + kBlock - 1) / kBlock;
}

inline Block block_of(std::int64_t task, std::int64_t images, std::int64_t queries) noexcept {
  const std::int64_t blocks = blocks_of(queries), first = task % blocks * kBlock;
  return {task / blocks / images, task / blocks % images, first, std::min(first + kBlock, queries)};
}

// Refuses a place for a gradient that is not laid out as it must be.
template <std::size_t Rank>
inline void require_grad(const char* where, const char* name, const AnyView<Rank>& grad,
                         const AnyView<Rank>& like) {
  require_shape(where, name, grad, like.shape);
  require_contiguous(where, name, grad);
  require(grad.dtype == like.dtype && grad.device == Device::cpu, "[", where, "] ", name,
          " must be of the type and device of ", name + sizeof("grad_") - 1);
}

// How many threads are worth waking for `items` of work, of which a thread should have `each`.
inline int worth(std::int64_t items, std::int64_t each, int threads) noexcept {
  return static_cast<int>(std::min<std::int64_t>(threads, 1 + items / each));
}

// Adds up the parts of each stage, in order.
//   parts (stages, parts of a stage)
inline void sum_stages(const std::vector<double>& parts, float normaliser,
                       const TensorView<float, 1>& sums) {
  const std::int64_t stages = sums.shape[0];
  const std::int64_t each = stages ? static_cast<std::int64_t>(parts.size()) / stages : 0;
  for (std::int64_t stage = 0; stage < stages; ++stage) {
    double sum = 0.0;
    for (std::int64_t i = 0; i < each; ++i) {
      sum += parts[static_cast<std::size_t>(stage * each + i)];
    }
    sums.data[stage * sums.stride[0]] = static_cast<float>(sum / static_cast<double>(normaliser));
  }
}

}  // namespace detrx::cpu
