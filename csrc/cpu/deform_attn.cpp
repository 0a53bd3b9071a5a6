#include "cpu/deform_attn.h"

#include <algorithm>
#include <numeric>

#include "core/exponential.h"
#include "core/inline.h"
#include "core/sample.h"
#include "cpu/parallel.h"

namespace detrx::cpu {
namespace {

constexpr int kLanes = 8;
typedef float Lanes __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));

// How many queries one thread takes at a time on the way forward.
constexpr std::int64_t kQueries = 32;

// The level of one of the P points.
struct Level {
  std::int64_t height;
  std::int64_t width;
  std::int64_t start;  // its first pixel
};

struct Problem {
  std::int64_t images, pixels, heads, channels, queries, points;
  std::vector<Level> levels;  // of each point
  const float* values;
  const float* locations;
  const float* weights;
  bool softmax;
  const float* grad = nullptr;
  float* out = nullptr;
  float* grad_values = nullptr;
  float* grad_locations = nullptr;
  float* grad_weights = nullptr;
};

DETRX_INLINE float sum_of(const Lanes& x) {
  const float low = (x[0] + x[4]) + (x[2] + x[6]), high = (x[1] + x[5]) + (x[3] + x[7]);
  return low + high;
}

// Where a point reads: the offsets of its corners' pixels into values, or -1 outside.
DETRX_INLINE void find_offsets(const Problem& p, const Level& level, const float* location,
                               std::int64_t base, Footprint& c, std::int64_t (&at)[4]) {
  find_footprint(location[0], location[1], level.height, level.width, c);
  const std::int64_t step = p.heads * p.channels;
  for (int k = 0; k < 4; ++k) {
    at[k] = c.pixel[k] < 0 ? -1 : base + (level.start + c.pixel[k]) * step;
  }
}

// The weights of the points of one query and head: as they are given, or their softmax.
class Weights {
 public:
  DETRX_INLINE Weights(const Problem& p, std::int64_t place)
      : weights_(p.weights + place * p.points) {
    if (!p.softmax) return;
    const float top = *std::max_element(weights_, weights_ + p.points);
    std::copy(weights_, weights_ + p.points, soft_);
    const std::int64_t whole = (p.points + kLanes - 1) / kLanes * kLanes;
    std::fill(soft_ + p.points, soft_ + whole, top - 1e30F);
    Lanes total = {};
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      Lanes& at = *reinterpret_cast<Lanes*>(soft_ + i);
      at = exp_below_88<Lanes>(at - top);
      total += at;
    }
    const float sum = sum_of(total);
    for (std::int64_t i = 0; i < p.points; ++i) soft_[i] /= sum;
    weights_ = soft_;
  }

  DETRX_INLINE float operator[](std::int64_t k) const { return weights_[k]; }

  // Turns the gradient of a softmax into that of what it was taken of.
  DETRX_INLINE void harden(const Problem& p, float* grad) const {
    if (!p.softmax) return;
    float mean = 0.0F;
    for (std::int64_t k = 0; k < p.points; ++k) mean += soft_[k] * grad[k];
    for (std::int64_t k = 0; k < p.points; ++k) grad[k] = soft_[k] * (grad[k] - mean);
  }

 private:
  const float* weights_;
  float soft_[kMostSoftened];
};

template <int Channels>  // 0: known only when run, any number
DETRX_INLINE void sample_query(const Problem& p, std::int64_t image, std::int64_t query,
                               std::int64_t head) {
  const std::int64_t channels = Channels ? Channels : p.channels;
  const std::int64_t place = (image * p.queries + query) * p.heads + head;
  const std::int64_t base = (image * p.pixels * p.heads + head) * channels;
  float* const out = p.out + place * channels;
  const Weights weights(p, place);
  Lanes sum[Channels ? Channels / kLanes : 1] = {};
  if (!Channels) std::fill(out, out + channels, 0.0F);
  for (std::int64_t k = 0; k < p.points; ++k) {
    Footprint c;
    std::int64_t at[4];
    const std::int64_t point = place * p.points + k;
    find_offsets(p, p.levels[static_cast<std::size_t>(k)], p.locations + 2 * point, base, c, at);
    for (int corner = 0; corner < 4; ++corner) {
      if (at[corner] < 0) continue;
      const float* const pixel = p.values + at[corner];
      const float scale = c.share[corner] * weights[k];
      if (Channels) {
        for (int i = 0; i < Channels / kLanes; ++i) {
          sum[i] += scale * *reinterpret_cast<const Lanes*>(pixel + i * kLanes);
        }
      } else {
        for (std::int64_t d = 0; d < channels; ++d) out[d] += scale * pixel[d];
      }
    }
  }
  for (int i = 0; i < Channels / kLanes; ++i) *reinterpret_cast<Lanes*>(out + i * kLanes) = sum[i];
}

// Adds scale * grad to the gradient of a pixel and returns the pixel's product with grad.
template <int Channels>
DETRX_INLINE float meet_pixel(const float* grad, const float* pixel, float* grad_pixel, float scale,
                              std::int64_t channels) {
  float product = 0.0F;
  if (Channels) {
    Lanes products = {};
    for (int i = 0; i < Channels / kLanes; ++i) {
      const Lanes g = *reinterpret_cast<const Lanes*>(grad + i * kLanes);
      products += g * *reinterpret_cast<const Lanes*>(pixel + i * kLanes);
      *reinterpret_cast<Lanes*>(grad_pixel + i * kLanes) += scale * g;
    }
    product = sum_of(products);
  } else {
    for (std::int64_t d = 0; d < channels; ++d) {
      product += grad[d] * pixel[d];
      grad_pixel[d] += scale * grad[d];
    }
  }
  return product;
}

template <int Channels>
DETRX_INLINE void differentiate_query(const Problem& p, std::int64_t image, std::int64_t query,
                                      std::int64_t head) {
  const std::int64_t channels = Channels ? Channels : p.channels;
  const std::int64_t place = (image * p.queries + query) * p.heads + head;
  const std::int64_t base = (image * p.pixels * p.heads + head) * channels;
  const float* const grad = p.grad + place * channels;
  const Weights weights(p, place);
  for (std::int64_t k = 0; k < p.points; ++k) {
    Footprint c;
    std::int64_t at[4];
    const std::int64_t point = place * p.points + k;
    const Level& level = p.levels[static_cast<std::size_t>(k)];
    find_offsets(p, level, p.locations + 2 * point, base, c, at);
    const float weight = weights[k];
    float product[4] = {};
    for (int i = 0; i < 4; ++i) {
      if (at[i] < 0) continue;
      product[i] = meet_pixel<Channels>(grad, p.values + at[i], p.grad_values + at[i],
                                        weight * c.share[i], channels);
    }
    const SampleGradient found =
        differentiate_sample(c, product, weight, level.height, level.width);
    p.grad_weights[point] = found.weight;
    p.grad_locations[2 * point] = found.x;
    p.grad_locations[2 * point + 1] = found.y;
  }
  weights.harden(p, p.grad_weights + place * p.points);
}

// One block of queries of one image: it writes to places of its own.
template <int Channels>
DETRX_INLINE void sample_block(const Problem& p, std::int64_t task) {
  const std::int64_t blocks = (p.queries + kQueries - 1) / kQueries;
  const std::int64_t image = task / blocks, first = task % blocks * kQueries;
  for (std::int64_t query = first; query < std::min(first + kQueries, p.queries); ++query) {
    for (std::int64_t head = 0; head < p.heads; ++head) {
      sample_query<Channels>(p, image, query, head);
    }
  }
}

// One head of one image: no other task adds to its gradient of values, and the order is always the
// same.
template <int Channels>
DETRX_INLINE void differentiate_head(const Problem& p, std::int64_t task) {
  const std::int64_t image = task / p.heads, head = task % p.heads;
  for (std::int64_t pixel = 0; pixel < p.pixels; ++pixel) {
    float* const to = p.grad_values + ((image * p.pixels + pixel) * p.heads + head) * p.channels;
    std::fill(to, to + p.channels, 0.0F);
  }
  for (std::int64_t query = 0; query < p.queries; ++query) {
    differentiate_query<Channels>(p, image, query, head);
  }
}

DETRX_INLINE void sample(const Problem& p, std::int64_t task) {
  if (p.channels == 16) return sample_block<16>(p, task);
  if (p.channels == 32) return sample_block<32>(p, task);
  sample_block<0>(p, task);
}

DETRX_INLINE void differentiate(const Problem& p, std::int64_t task) {
  if (p.channels == 16) return differentiate_head<16>(p, task);
  if (p.channels == 32) return differentiate_head<32>(p, task);
  differentiate_head<0>(p, task);
}

#if DETRX_X86
DETRX_AVX2 void sample_avx2(const Problem& p, std::int64_t task) { sample(p, task); }
DETRX_AVX2 void differentiate_avx2(const Problem& p, std::int64_t task) { differentiate(p, task); }
#endif
void sample_plain(const Problem& p, std::int64_t task) { sample(p, task); }
void differentiate_plain(const Problem& p, std::int64_t task) { differentiate(p, task); }

using Work = void (*)(const Problem&, std::int64_t);

#if DETRX_X86
Work sampler() { return has_avx2() ? sample_avx2 : sample_plain; }
Work differentiator() { return has_avx2() ? differentiate_avx2 : differentiate_plain; }
#else
Work sampler() { return sample_plain; }
Work differentiator() { return differentiate_plain; }
#endif

std::vector<Level> levels_of_points(const std::vector<std::int64_t>& sides,
                                    const std::vector<std::int64_t>& points, std::int64_t pixels) {
  require(sides.size() == 2 * points.size(), "[deform_attn] need two sides and a number of points ",
          "for each level, got ", sides.size(), " sides for ", points.size(), " levels");
  std::vector<Level> levels;
  std::int64_t start = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const Level level{sides[2 * i], sides[2 * i + 1], start};
    require(level.height > 0 && level.width > 0 && points[i] >= 0,
            "[deform_attn] sides must be positive and points >= 0");
    levels.insert(levels.end(), static_cast<std::size_t>(points[i]), level);
    start += level.height * level.width;
  }
  require(start == pixels, "[deform_attn] values must have ", start, " pixels, got ", pixels);
  return levels;
}

Problem make_problem(const TensorView<const float, 4>& values,
                     const std::vector<std::int64_t>& sides,
                     const TensorView<const float, 5>& locations,
                     const TensorView<const float, 4>& weights,
                     const std::vector<std::int64_t>& points, bool softmax, int threads) {
  const std::int64_t images = values.shape[0], heads = values.shape[2];
  const std::int64_t queries = weights.shape[1];
  const std::int64_t all = std::accumulate(points.begin(), points.end(), std::int64_t{0});
  require_shape("deform_attn", "weights", weights, {images, queries, heads, all});
  require_shape("deform_attn", "locations", locations, {images, queries, heads, all, 2});
  require_contiguous("deform_attn", "values", values);
  require_contiguous("deform_attn", "locations", locations);
  require_contiguous("deform_attn", "weights", weights);
  require(!softmax || (all > 0 && all <= kMostSoftened),
          "[deform_attn] the softmax must be of 1 to ", kMostSoftened, " points, got ", all);
  require(threads >= 1, "[deform_attn] threads must be >= 1, got ", threads);
  Problem p{};
  p.images = images;
  p.pixels = values.shape[1];
  p.heads = heads;
  p.channels = values.shape[3];
  p.queries = queries;
  p.points = all;
  p.levels = levels_of_points(sides, points, p.pixels);
  p.values = values.data;
  p.locations = locations.data;
  p.weights = weights.data;
  p.softmax = softmax;
  return p;
}

}  // namespace

void deform_attn(TensorView<const float, 4> values, const std::vector<std::int64_t>& sides,
                 TensorView<const float, 5> locations, TensorView<const float, 4> weights,
                 const std::vector<std::int64_t>& points, bool softmax, TensorView<float, 3> out,
                 int threads) {
  Problem p = make_problem(values, sides, locations, weights, points, softmax, threads);
  require_shape("deform_attn", "out", out, {p.images, p.queries, p.heads * p.channels});
  require_contiguous("deform_attn", "out", out);
  p.out = out.data;
  const Work work = sampler();
  parallel(p.images * ((p.queries + kQueries - 1) / kQueries), threads,
           [&](std::int64_t task) { work(p, task); });
}

void deform_attn_backward(TensorView<const float, 3> grad, TensorView<const float, 4> values,
                          const std::vector<std::int64_t>& sides,
                          TensorView<const float, 5> locations, TensorView<const float, 4> weights,
                          const std::vector<std::int64_t>& points, bool softmax,
                          TensorView<float, 4> grad_values, TensorView<float, 5> grad_locations,
                          TensorView<float, 4> grad_weights, int threads) {
  Problem p = make_problem(values, sides, locations, weights, points, softmax, threads);
  require_shape("deform_attn_backward", "grad", grad, {p.images, p.queries, p.heads * p.channels});
  require_shape("deform_attn_backward", "grad_values", grad_values, values.shape);
  require_shape("deform_attn_backward", "grad_locations", grad_locations, locations.shape);
  require_shape("deform_attn_backward", "grad_weights", grad_weights, weights.shape);
  require_contiguous("deform_attn_backward", "grad", grad);
  require_contiguous("deform_attn_backward", "grad_values", grad_values);
  require_contiguous("deform_attn_backward", "grad_locations", grad_locations);
  require_contiguous("deform_attn_backward", "grad_weights", grad_weights);
  p.grad = grad.data;
  p.grad_values = grad_values.data;
  p.grad_locations = grad_locations.data;
  p.grad_weights = grad_weights.data;
  const Work work = differentiator();
  parallel(p.images * p.heads, threads, [&](std::int64_t task) { work(p, task); });
}

}  // namespace detrx::cpu
