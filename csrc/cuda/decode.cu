#include "cuda/block.h"
#include "cuda/decoding.h"
#include "cuda/shape.h"

namespace detrx::cuda {
namespace {

constexpr int kThreads = 512;  // of the block that has one image
constexpr int kBins = 256;
constexpr int kCopies = 8;  // of the counts: neighbours often fall into one bin
constexpr int kScoreThreads = 128;

// What a softmax over all columns gives one of the logits. All lanes call.
template <typename T>
__device__ float softmax_share(float logit, const T* logits, std::int64_t columns) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float highest = logit;
  for (std::int64_t c = lane; c < columns; c += kWarp) {
    const float other = to_float(logits[c]);
    highest = other > highest ? other : highest;
  }
  highest = lanes_max(highest);
  float sum = 0.0F;
  for (std::int64_t c = lane; c < columns; c += kWarp) {
    sum += std::exp(to_float(logits[c]) - highest);
  }
  return std::exp(logit - highest) / lanes_sum(sum);
}

// One warp a query: its best class and the score of that.
template <typename T>
__global__ void __launch_bounds__(kScoreThreads) score_kernel(const DecodeProblem p) {
  const auto warp = static_cast<std::int64_t>(threadIdx.x / kWarp);
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const std::int64_t query = static_cast<std::int64_t>(blockIdx.x) * (kScoreThreads / kWarp) + warp;
  if (query >= p.images * p.queries) return;  // the whole warp
  const T* const logits = static_cast<const T*>(p.logits) + query * p.columns;
  const bool named = p.classes > 0;
  const std::int64_t classes = named ? p.classes : p.columns - (p.sigmoid ? 0 : 1);
  std::uint64_t key = 0;
  for (std::int64_t c = lane; c < classes; c += kWarp) {
    const float logit = to_float(logits[named ? p.column[c] : c]);
    const std::uint64_t other = key_of(logit, static_cast<std::uint32_t>(c));
    key = other > key ? other : key;
  }
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const std::uint64_t other = __shfl_xor_sync(kAllLanes, key, step);
    key = other > key ? other : key;
  }
  const std::uint32_t label = index_of(key);
  const float best = to_float(logits[named ? p.column[label] : label]);
  const float score = p.sigmoid ? share_of(best) : softmax_share(best, logits, p.columns);
  if (lane != 0) return;
  p.best[query] = score;
  p.best_label[query] = static_cast<std::int32_t>(label);
}

// The candidates of one image.
template <typename T>
struct Candidates {
  const T* logits;
  const float* best;  // null for pairs
  std::int64_t count;

  __device__ std::uint64_t key(std::int64_t i) const {
    const float value = best != nullptr ? best[i] : to_float(logits[i]);
    return key_of(value, static_cast<std::uint32_t>(i));
  }
};

// Finds the least of the `top` highest keys, eight bits at a time from the highest; it may stop
// early, at a number that no other key lies between. All keys differ.
template <typename T>
__device__ std::uint64_t least_taken(const Candidates<T>& candidates, std::int64_t top) {
  __shared__ unsigned counts[kCopies][kBins];
  __shared__ unsigned totals[kBins];
  __shared__ std::uint64_t chosen;
  __shared__ unsigned left;
  __shared__ bool settled;
  const unsigned i = threadIdx.x;
  if (i == 0) {
    chosen = 0;
    left = static_cast<unsigned>(top);
    settled = false;
  }
  int shift = 64;
  for (bool done = false; !done && shift > 0;) {
    shift -= 8;
    for (unsigned bin = i; bin < kCopies * kBins; bin += kThreads) (&counts[0][0])[bin] = 0;
    __syncthreads();
    const std::uint64_t prefix = chosen;
    for (std::int64_t n = i; n < candidates.count; n += kThreads) {
      const std::uint64_t key = candidates.key(n);
      if (key >> shift >> 8 == prefix) atomicAdd(&counts[i % kCopies][key >> shift & 255U], 1U);
    }
    __syncthreads();
    if (i < kBins) {
      unsigned total = 0;
      for (int copy = 0; copy < kCopies; ++copy) total += counts[copy][i];
      totals[i] = total;
    }
    __syncthreads();
    const unsigned wanted = left;
    unsigned above = 0;
    for (unsigned bin = i + 1; bin < kBins; ++bin) above += totals[bin];
    __syncthreads();
    if (i < kBins && above < wanted && above + totals[i] >= wanted) {  // one thread's bin
      chosen = prefix << 8 | i;
      left = wanted - above;
      settled = totals[i] == wanted - above;
    }
    __syncthreads();
    done = settled;
  }
  return chosen << shift;
}

// From high to low; count is a power of two.
__device__ void sort_keys(std::uint64_t* keys, int count) {
  for (int size = 2; size <= count; size *= 2) {
    for (int apart = size / 2; apart > 0; apart /= 2) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < count / 2; i += kThreads) {
        const int low = i / apart * 2 * apart + i % apart, high = low + apart;
        const bool falls = (low & size) == 0;
        const std::uint64_t a = keys[low], b = keys[high];
        if ((a < b) == falls) {
          keys[low] = b;
          keys[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

template <typename T>
__device__ void write_answer(const DecodeProblem& p, std::int64_t image, std::int64_t k,
                             std::int64_t index) {
  const bool pairs = p.decoding == Decoding::pairs;
  const std::int64_t query = image * p.queries + (pairs ? index / p.columns : index);
  const T* const logits = static_cast<const T*>(p.logits);
  const std::int64_t at = image * p.top + k;
  const std::int64_t label = pairs ? index % p.columns : p.best_label[query];
  p.scores[at] = pairs ? share_of(to_float(logits[query * p.columns + label])) : p.best[query];
  if (p.wide_labels) {
    static_cast<std::int64_t*>(p.labels)[at] = label;
  } else {
    static_cast<std::int32_t*>(p.labels)[at] = static_cast<std::int32_t>(label);
  }
  if (p.chosen != nullptr) {
    p.chosen[at] = static_cast<std::int32_t>(query - image * p.queries);
  }
  write_corners(static_cast<const T*>(p.boxes) + 4 * query, p.corners + 4 * at);
}

// One block an image.
template <typename T>
__global__ void __launch_bounds__(kThreads) best_kernel(const DecodeProblem p) {
  __shared__ std::uint64_t keys[kMostAnswers];
  __shared__ unsigned taken;
  const auto image = static_cast<std::int64_t>(blockIdx.x);
  const bool pairs = p.decoding == Decoding::pairs;
  const std::int64_t count = pairs ? p.queries * p.columns : p.queries;
  const Candidates<T> candidates{static_cast<const T*>(p.logits) + image * p.queries * p.columns,
                                 pairs ? nullptr : p.best + image * p.queries, count};
  const std::uint64_t least = least_taken(candidates, p.top);
  int padded = 1;
  while (padded < p.top) padded *= 2;
  for (int i = static_cast<int>(threadIdx.x); i < padded; i += kThreads) keys[i] = 0;
  if (threadIdx.x == 0) taken = 0;
  __syncthreads();
  for (std::int64_t i = threadIdx.x; i < count; i += kThreads) {
    const std::uint64_t key = candidates.key(i);
    if (key >= least) keys[atomicAdd(&taken, 1U)] = key;
  }
  sort_keys(keys, padded);
  for (std::int64_t k = threadIdx.x; k < p.top; k += kThreads) {
    write_answer<T>(p, image, k, index_of(keys[k]));
  }
}

}  // namespace

template <typename T>
void launch_decode(const DecodeProblem& p, Stream stream) {
  if (p.decoding == Decoding::queries) {
    const Grid grid{divide_up(p.images * p.queries, kScoreThreads / kWarp), 1, 1};
    launch("decode", score_kernel<T>, grid, kScoreThreads, 0, stream, p);
  }
  launch("decode", best_kernel<T>, {p.images, 1, 1}, kThreads, 0, stream, p);
}

template void launch_decode<float>(const DecodeProblem&, Stream);
template void launch_decode<Half>(const DecodeProblem&, Stream);
template void launch_decode<Bfloat16>(const DecodeProblem&, Stream);

}  // namespace detrx::cuda
