#include "cpu/slopes.h"

#include <algorithm>

#include "core/vector_math.h"
#include "cpu/owners.h"
#include "cpu/parallel.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace detrx::cpu {
namespace {

// How many slopes one thread takes at a time.
constexpr std::int64_t kPiece = 1 << 15;

// Below this, memory is likely to have been used before.
constexpr std::int64_t kLarge = 8 << 20;

struct Multiply {
  template <typename Own>
  static DETRX_INLINE void run(float* x, std::int64_t count, float by) {
    using Wide = Lanes<Own::kCount>;
    if (count >= Wide::kCount) return multiply<Wide>(x, count, by);
    for (std::int64_t i = 0; i < count; ++i) x[i] *= by;
  }
};

}  // namespace

void scale_slopes(const TensorView<const float, 1>& grad, const TensorView<float, 4>& slopes,
                  int threads) {
  const std::int64_t stages = slopes.shape[0];
  require_shape("scale_slopes", "grad", grad, {stages});
  require_contiguous("scale_slopes", "slopes", slopes);
  require(threads >= 1, "[scale_slopes] threads must be >= 1, got ", threads);
  const std::int64_t each = stages ? slopes.size() / stages : 0;
  const std::int64_t pieces = (each + kPiece - 1) / kPiece;
  const auto multiply = Entries<Multiply, void, float*, std::int64_t, float>::best();
  const int sharing = worth(slopes.size(), 4 * kPiece, threads);
  parallel(stages * pieces, sharing, [&](std::int64_t task) {
    const std::int64_t stage = task / pieces, first = task % pieces * kPiece;
    const float by = grad.data[stage * grad.stride[0]];
    if (by == 1.0F) return;
    multiply(slopes.data + stage * each + first, std::min(kPiece, each - first), by);
  });
}

void prefer_large_pages([[maybe_unused]] void* from, [[maybe_unused]] std::int64_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kPage = 1 << 21;
  const auto first = reinterpret_cast<std::uintptr_t>(from);
  const std::uintptr_t start = (first + kPage - 1) / kPage * kPage;
  const std::uintptr_t end = (first + static_cast<std::uintptr_t>(bytes)) / kPage * kPage;
  if (bytes < kLarge || end <= start) return;
  madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);  // advice: may be refused
#endif
}

float* room_for_slopes(const char* where, const AnyView<4>& slopes, const AnyView<4>& logits) {
  require(logits.dtype == Dtype::float32, "[", where,
          "] logits must be float32 where slopes are asked for, got ", text(logits.dtype));
  require(slopes.dtype == Dtype::float32 && slopes.device == Device::cpu, "[", where,
          "] slopes must be float32 in the memory of the CPU");
  require_shape(where, "slopes", slopes, logits.shape);
  require_contiguous(where, "slopes", slopes);
  float* const first = slopes.items<float>().data;
  prefer_large_pages(first, slopes.size() * static_cast<std::int64_t>(sizeof(float)));
  return first;
}

}  // namespace detrx::cpu
