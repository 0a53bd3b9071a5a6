#include "cuda/deform_attn.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <numeric>

#include "cuda/arguments.h"
#include "cuda/sampling.h"
#include "cuda/shape.h"

namespace detrx::cuda {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();

std::int32_t narrow(std::int64_t size) {
  require(size >= 0 && size <= kLargest, "[deform_attn] a size must fit 31 bits, got ", size);
  return static_cast<std::int32_t>(size);
}

void lay_levels(Sampling& p, const std::vector<std::int64_t>& sides,
                const std::vector<std::int64_t>& points) {
  require(sides.size() == 2 * points.size() && points.size() <= kMostLevels,
          "[deform_attn] need two sides and a number of points for each of at most ", kMostLevels,
          " levels, got ", sides.size(), " sides for ", points.size(), " levels");
  std::int64_t start = 0, end = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    require(sides[2 * i] > 0 && sides[2 * i + 1] > 0 && points[i] >= 0,
            "[deform_attn] sides must be positive and points >= 0");
    p.height[i] = narrow(sides[2 * i]);
    p.width[i] = narrow(sides[2 * i + 1]);
    p.start[i] = start;
    start += sides[2 * i] * sides[2 * i + 1];
    end += points[i];
    p.end[i] = narrow(end);
  }
  require(start == p.pixels, "[deform_attn] values must have ", start, " pixels, got ", p.pixels);
  p.levels = narrow(static_cast<std::int64_t>(points.size()));
}

Sampling make_problem(std::array<std::int64_t, 4> values, std::int64_t queries,
                      const std::vector<std::int64_t>& sides,
                      const std::vector<std::int64_t>& points, bool softmax) {
  Sampling p{};
  p.images = values[0];
  p.pixels = values[1];
  p.heads = narrow(values[2]);
  p.channels = narrow(values[3]);
  p.queries = queries;
  p.points = narrow(std::accumulate(points.begin(), points.end(), std::int64_t{0}));
  p.softmax = softmax;
  lay_levels(p, sides, points);
  return p;
}

Sampling make_problem(const Arguments& arguments, const AnyView<4>& values,
                      const std::vector<std::int64_t>& sides, const AnyView<5>& locations,
                      const AnyView<4>& weights, const std::vector<std::int64_t>& points,
                      bool softmax) {
  Sampling p = make_problem(values.shape, weights.shape[1], sides, points, softmax);
  p.values = arguments.memory("values", values, values.shape);
  p.weights =
      arguments.items<const float>("weights", weights, {p.images, p.queries, p.heads, p.points});
  p.locations = arguments.items<const float>("locations", locations,
                                             {p.images, p.queries, p.heads, p.points, 2});
  return p;
}

// Where the channels and the memory of the values (and of all that has their layout) allow it, a
// thread takes 16 bytes at a time; as many threads as that asks for, rounded up to a power of two.
bool lay_lanes(Sampling& p, std::int64_t vector, std::initializer_list<const void*> memory) {
  const bool wide = std::all_of(memory.begin(), memory.end(), aligned) && p.channels % vector == 0;
  const std::int64_t wanted = divide_up(p.channels, wide ? vector : 1);
  p.lanes = 1;
  while (p.lanes < kWarp && p.lanes < wanted) p.lanes *= 2;
  require(p.images * p.queries * p.heads * p.lanes <= kLargest - kMostThreads,
          "[deform_attn] images * queries * heads are too many for one call");
  return wide;
}

}  // namespace

void deform_attn(const AnyView<4>& values, const std::vector<std::int64_t>& sides,
                 const AnyView<5>& locations, const AnyView<4>& weights,
                 const std::vector<std::int64_t>& points, bool softmax, const AnyView<3>& out,
                 std::int64_t stream) {
  const Arguments arguments("deform_attn", values.device_index);
  Sampling p = make_problem(arguments, values, sides, locations, weights, points, softmax);
  dispatch_float(values.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kVector = 16 / sizeof(T);
    p.out = arguments.items<T>("out", out, {p.images, p.queries, p.heads * p.channels});
    const bool wide = lay_lanes(p, kVector, {p.values, p.out});
    (wide ? launch_sample<T, kVector> : launch_sample<T, 1>)(p, stream_of(stream));
  });
}

void deform_attn_of_boxes(const BoxAttention& call, const std::vector<std::int64_t>& sides,
                          const std::vector<std::int64_t>& points, float reach, Dtype dtype,
                          Stream stream) {
  Sampling p = make_problem({call.images, call.pixels, call.heads, call.channels}, call.queries,
                            sides, points, true);
  p.values = call.values;
  p.boxes = call.boxes;
  p.offsets = call.offsets;
  p.logits = call.logits;
  p.out = call.out;
  for (std::size_t i = 0; i < points.size(); ++i) {
    p.reach[i] = points[i] > 0 ? reach / static_cast<float>(points[i]) : 0.0F;
  }
  dispatch_float(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kVector = 16 / sizeof(T);
    const bool wide = lay_lanes(p, kVector, {p.values, p.out});
    (wide ? launch_sample<T, kVector> : launch_sample<T, 1>)(p, stream);
  });
}

void deform_attn_of_boxes(const AnyView<4>& values, const std::vector<std::int64_t>& sides,
                          const AnyView<3>& boxes, const AnyView<3>& offsets,
                          const AnyView<3>& logits, const std::vector<std::int64_t>& points,
                          float reach, const AnyView<3>& out, std::int64_t stream) {
  const Arguments arguments("deform_attn", values.device_index);
  const auto [images, pixels, heads, channels] = values.shape;
  const std::int64_t queries = boxes.shape[1];
  const std::int64_t each = heads * std::accumulate(points.begin(), points.end(), std::int64_t{0});
  for (const AnyView<3>* const like : {&offsets, &logits, &out}) {
    require(like->dtype == values.dtype, "[deform_attn] offsets, logits and out must be ",
            text(values.dtype), ", got ", text(like->dtype));
  }
  BoxAttention call{};
  call.images = images;
  call.pixels = pixels;
  call.queries = queries;
  call.heads = heads;
  call.channels = channels;
  call.values = arguments.memory("values", values, values.shape);
  call.boxes = arguments.items<const float>("boxes", boxes, {images, queries, 4});
  call.offsets = arguments.memory("offsets", offsets, {images, queries, 2 * each});
  call.logits = arguments.memory("logits", logits, {images, queries, each});
  call.out = arguments.memory("out", out, {images, queries, heads * channels});
  deform_attn_of_boxes(call, sides, points, reach, values.dtype, stream_of(stream));
}

void deform_attn_backward(const AnyView<3>& grad, const AnyView<4>& values,
                          const std::vector<std::int64_t>& sides, const AnyView<5>& locations,
                          const AnyView<4>& weights, const std::vector<std::int64_t>& points,
                          bool softmax, const AnyView<4>& grad_values,
                          const AnyView<5>& grad_locations, const AnyView<4>& grad_weights,
                          std::int64_t stream) {
  const Arguments arguments("deform_attn_backward", values.device_index);
  Sampling p = make_problem(arguments, values, sides, locations, weights, points, softmax);
  p.grad_values = arguments.items<float>("grad_values", grad_values, values.shape);
  p.grad_locations = arguments.items<float>("grad_locations", grad_locations, locations.shape);
  p.grad_weights = arguments.items<float>("grad_weights", grad_weights, weights.shape);
  dispatch_float(values.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    constexpr int kVector = 16 / sizeof(T);
    p.grad = arguments.items<const T>("grad", grad, {p.images, p.queries, p.heads * p.channels});
    const bool wide = lay_lanes(p, kVector, {p.values, p.grad, p.grad_values});
    (wide ? launch_differentiate<T, kVector> : launch_differentiate<T, 1>)(p, stream_of(stream));
  });
}

}  // namespace detrx::cuda
