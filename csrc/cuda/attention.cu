#include <cmath>
#include <cstdint>

#include "core/half.h"
#include "cuda/attending.h"
#include "cuda/block.h"
#include "cuda/pack.h"
#include "cuda/shape.h"
#include "cuda/wmma.h"

namespace detrx::cuda {
namespace {

// The queries that a block works on, and the memory of their image and head.
struct Slice {
  std::int64_t queries, keys, image;  // the first item of each, and the number of the image
  std::int64_t step;                  // items from row to row
  int first;                          // query

  __device__ Slice(const AttentionProblem& p, int size) {
    const auto blocks = static_cast<unsigned>(divide_up(p.queries, size));
    const unsigned place = blockIdx.x / blocks, heads = static_cast<unsigned>(p.heads);
    first = static_cast<int>(blockIdx.x % blocks) * size;
    image = place / heads;
    step = static_cast<std::int64_t>(heads) * kHead;
    const std::int64_t channel = static_cast<std::int64_t>(place % heads) * kHead;
    queries = image * p.queries * step + channel;
    keys = image * p.keys * step + channel;
  }
};

Grid grid_of(const AttentionProblem& p, int size) {
  return {p.images * p.heads * divide_up(p.queries, size)};
}

// Minus infinity, which NVRTC has no name for.
__device__ inline float hidden() { return float_of_bits(0xff800000U); }

// What is added to the scores of a key: minus infinity past the last one.
__device__ inline float bias_of(const AttentionProblem& p, std::int64_t image, int key) {
  if (key >= p.keys) return hidden();
  return p.bias == nullptr ? 0.0F : p.bias[image * p.keys + key];
}

// The softmax of a row as its scores come in: the highest so far, and the sum of the others' e to
// the power of the distance from it.
struct Running {
  float most = hidden(), sum = 0.0F;

  // Takes the highest of new scores in; answers by how much all before shrinks.
  __device__ float raise(float peak) {
    const float before = most;
    most = peak > most ? peak : most;
    const float keep = std::exp(before - floor());
    sum *= keep;
    return keep;
  }
  // What scores are compared with; of keys that are all hidden, nothing is left.
  __device__ float floor() const { return most == hidden() ? 0.0F : most; }
  __device__ float share() const { return sum == 0.0F ? 0.0F : 1.0F / sum; }
};

constexpr int kPlainThreads = 64;  // each has a query
constexpr int kPlainKeys = 32;     // at a time
constexpr int kScores = 8;         // at a time

template <typename T>
__global__ void __launch_bounds__(kPlainThreads) plain_kernel(const AttentionProblem p) {
  alignas(16) __shared__ float keys[kPlainKeys][kHead];
  alignas(16) __shared__ float values[kPlainKeys][kHead];
  __shared__ float bias[kPlainKeys];
  const Slice slice(p, kPlainThreads);
  const int thread = static_cast<int>(threadIdx.x), mine = slice.first + thread;
  const bool real = mine < p.queries;
  const std::int64_t row = slice.queries + (real ? mine : slice.first) * slice.step;
  float query[kHead], sum[kHead] = {};
#pragma unroll
  for (int c = 0; c < kHead; ++c) {
    query[c] = to_float(static_cast<const T*>(p.query)[row + c]) * p.scale;
  }
  Running running;
  for (int first = 0; first < p.keys; first += kPlainKeys) {
    __syncthreads();
    for (int i = thread * 4; i < kPlainKeys * kHead; i += kPlainThreads * 4) {
      const int key = i / kHead, c = i % kHead;
      float k[4] = {}, v[4] = {};
      if (first + key < p.keys) {
        const std::int64_t from = slice.keys + (first + key) * slice.step + c;
        load(static_cast<const T*>(p.key) + from, k);
        load(static_cast<const T*>(p.value) + from, v);
      }
      store(k, &keys[key][c]);
      store(v, &values[key][c]);
    }
    if (thread < kPlainKeys) bias[thread] = bias_of(p, slice.image, first + thread);
    __syncthreads();
    for (int j = 0; j < kPlainKeys; j += kScores) {
      float score[kScores], peak = hidden();
#pragma unroll
      for (int s = 0; s < kScores; ++s) {
        float product = 0.0F;
#pragma unroll
        for (int c = 0; c < kHead; ++c) product += query[c] * keys[j + s][c];
        score[s] = product + bias[j + s];
        peak = score[s] > peak ? score[s] : peak;
      }
      const float keep = running.raise(peak);
#pragma unroll
      for (int c = 0; c < kHead; ++c) sum[c] *= keep;
#pragma unroll
      for (int s = 0; s < kScores; ++s) {
        const float weight = std::exp(score[s] - running.floor());
        running.sum += weight;
#pragma unroll
        for (int c = 0; c < kHead; ++c) sum[c] += weight * values[j + s][c];
      }
    }
  }
  if (!real) return;
  const float share = running.share();
#pragma unroll
  for (int c = 0; c < kHead; ++c) static_cast<T*>(p.out)[row + c] = from_float<T>(sum[c] * share);
}

constexpr int kWarps = 4;
constexpr int kRows = 16;  // queries of a warp
constexpr int kKeys = 64;  // at a time, of a block
// Items from row to row, so that neighbouring rows lie in other banks of shared memory.
constexpr int kPitch = kHead + 8;
constexpr int kScorePitch = kKeys + 8;
constexpr int kWeightPitch = 2 * kScorePitch;  // where the halves of a row lie in its scores

// What a warp keeps in shared memory.
struct Room {
  alignas(32) float scores[kRows][kScorePitch];
  float factor[kRows];  // of each row

  __device__ Half* halves() { return reinterpret_cast<Half*>(&scores[0][0]); }
};

// Two lanes have a row of a warp. Of its scores they take four in turn.
struct RowLane {
  int row, side;

  __device__ RowLane()
      : row(static_cast<int>(threadIdx.x) % kWarp / 2), side(static_cast<int>(threadIdx.x) % 2) {}
  __device__ int score(int i) const { return 8 * i + 4 * side; }
};

// The queries of a warp, scaled, as tiles.
__device__ inline void load_queries(const AttentionProblem& p, const Slice& slice, int first,
                                    Room& room, TileA (&to)[2]) {
  const RowLane at;
  Half* const rows = room.halves();
#pragma unroll
  for (int c = 16 * at.side; c < 16 * at.side + 16; c += 8) {
    float query[8] = {};
    if (first + at.row < p.queries) {
      const std::int64_t from = slice.queries + (first + at.row) * slice.step + c;
      load(static_cast<const Half*>(p.query) + from, query);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) query[i] *= p.scale;
    store(query, rows + at.row * kPitch + c);
  }
  __syncwarp();
  load_tile(rows, kPitch, to[0]);
  load_tile(rows + 16, kPitch, to[1]);
  __syncwarp();
}

// In which row of a tile each item of this lane lies: read off a tile that holds the numbers of its
// rows.
__device__ inline void find_rows(Room& room, int (&rows)[8]) {
  const RowLane at;
  for (int c = 8 * at.side; c < 8 * at.side + 8; ++c) {
    room.scores[at.row][c] = static_cast<float>(at.row);
  }
  __syncwarp();
  TileSum numbers;
  load_tile(&room.scores[0][0], kScorePitch, numbers);
#pragma unroll
  for (int i = 0; i < 8; ++i) rows[i] = static_cast<int>(numbers.items[i]);
  __syncwarp();
}

// The scores of a warp's queries and the block's keys, into the warp's room.
__device__ inline void score(const TileA (&queries)[2], const Half (&keys)[kKeys][kPitch],
                             Room& room) {
#pragma unroll
  for (int j = 0; j < kKeys; j += 16) {
    TileSum sum = {};
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      TileB<Side::outer_rows> some;
      load_tile(&keys[j][16 * c], kPitch, some);
      add_product(queries[c], some, sum);
    }
    store_tile(sum, &room.scores[0][j], kScorePitch);
  }
  __syncwarp();
}

// From scores to weights, which take their place as halves, and by how much each row's sum shrinks.
__device__ inline void weigh(const float (&bias)[kKeys], Running& running, Room& room) {
  const RowLane at;
  constexpr int kFours = kKeys / 8;
  float scores[kFours][4], peak = hidden();
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    load(&room.scores[at.row][at.score(i)], scores[i]);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      scores[i][n] += bias[at.score(i) + n];
      peak = scores[i][n] > peak ? scores[i][n] : peak;
    }
  }
  const float keep = running.raise(lanes_max(peak, 2));
  __syncwarp();  // all have been read
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      const Half weight = from_float<Half>(std::exp(scores[i][n] - running.floor()));
      scores[i][n] = to_float(weight);
      sum += scores[i][n];
    }
    store(scores[i], room.halves() + at.row * kWeightPitch + at.score(i));
  }
  running.sum += lanes_sum(sum, 2);
  if (at.side == 0) room.factor[at.row] = keep;
  __syncwarp();
}

__device__ inline void write_rows(const AttentionProblem& p, const Slice& slice, int first,
                                  Room& room) {
  const RowLane at;
  if (first + at.row >= p.queries) return;
  const std::int64_t row = slice.queries + (first + at.row) * slice.step;
#pragma unroll
  for (int c = 16 * at.side; c < 16 * at.side + 16; c += 4) {
    float found[4];
    load(&room.scores[at.row][c], found);
    store(found, static_cast<Half*>(p.out) + row + c);
  }
}

// A warp has 16 queries; the block's warps share keys and values. (FlashAttention, arXiv
// 2205.14135: the softmax is corrected as scores come in, so that they are never all there.)
__global__ void __launch_bounds__(kWarps* kWarp) tensor_kernel(const AttentionProblem p) {
  alignas(32) __shared__ Half keys[kKeys][kPitch];
  alignas(32) __shared__ Half values[kKeys][kPitch];
  __shared__ float bias[kKeys];
  __shared__ Room rooms[kWarps];
  const Slice slice(p, kWarps * kRows);
  const int thread = static_cast<int>(threadIdx.x);
  const int first_query = slice.first + thread / kWarp * kRows;
  Room& room = rooms[thread / kWarp];
  TileA queries[2];
  load_queries(p, slice, first_query, room, queries);
  int rows[8];
  find_rows(room, rows);
  TileSum sum[2] = {};
  Running running;
  for (int first = 0; first < p.keys; first += kKeys) {
    __syncthreads();
    for (int i = thread * 8; i < kKeys * kHead; i += kWarps * kWarp * 8) {
      const int key = i / kHead, c = i % kHead;
      Pack<Half, 8> k = {}, v = {};
      if (first + key < p.keys) {
        const std::int64_t from = slice.keys + (first + key) * slice.step + c;
        k = *reinterpret_cast<const Pack<Half, 8>*>(static_cast<const Half*>(p.key) + from);
        v = *reinterpret_cast<const Pack<Half, 8>*>(static_cast<const Half*>(p.value) + from);
      }
      *reinterpret_cast<Pack<Half, 8>*>(&keys[key][c]) = k;
      *reinterpret_cast<Pack<Half, 8>*>(&values[key][c]) = v;
    }
    if (thread < kKeys) bias[thread] = bias_of(p, slice.image, first + thread);
    __syncthreads();
    score(queries, keys, room);
    weigh(bias, running, room);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      for (TileSum& tile : sum) tile.items[i] *= room.factor[rows[i]];
    }
#pragma unroll
    for (int j = 0; j < kKeys; j += 16) {
      TileA weights;
      load_tile(room.halves() + j, kWeightPitch, weights);
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        TileB<Side::inner_rows> some;
        load_tile(&values[j][16 * c], kPitch, some);
        add_product(weights, some, sum[c]);
      }
    }
  }
  __syncwarp();
  if (RowLane().side == 0) room.factor[RowLane().row] = running.share();
  __syncwarp();
#pragma unroll
  for (int c = 0; c < 2; ++c) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[c].items[i] *= room.factor[rows[i]];
    store_tile(sum[c], &room.scores[0][16 * c], kScorePitch);
  }
  __syncwarp();
  write_rows(p, slice, first_query, room);
}

}  // namespace

template <typename T>
void launch_attention(const AttentionProblem& p, Stream stream) {
  launch("attention", plain_kernel<T>, grid_of(p, kPlainThreads), kPlainThreads, 0, stream, p);
}

template void launch_attention<float>(const AttentionProblem&, Stream);
template void launch_attention<Bfloat16>(const AttentionProblem&, Stream);

void launch_tensor_attention(const AttentionProblem& p, Stream stream) {
  constexpr int kQueries = kWarps * kRows;
  launch("attention", tensor_kernel, grid_of(p, kQueries), kWarps * kWarp, 0, stream, p);
}

}  // namespace detrx::cuda
