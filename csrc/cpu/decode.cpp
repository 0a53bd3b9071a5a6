#include "cpu/decode.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "core/lanes.h"
#include "cpu/parallel.h"

namespace detrx::cpu {
namespace {

// The highest keys seen so far. Most are turned away by one comparison.
class Best {
 public:
  explicit Best(std::size_t wanted) : wanted_(wanted) { keys_.reserve(4 * wanted); }

  void offer(float value, std::int64_t index) {
    if (rank_of(value) < least_) return;
    keys_.push_back(key_of(value, static_cast<std::uint32_t>(index)));
    if (keys_.size() == 4 * wanted_) shorten();
  }

  const std::vector<std::uint64_t>& sorted() {
    if (keys_.size() > wanted_) shorten();
    std::sort(keys_.begin(), keys_.end(), std::greater<>());
    return keys_;
  }

 private:
  void shorten() {
    const auto last = keys_.begin() + static_cast<std::ptrdiff_t>(wanted_) - 1;
    std::nth_element(keys_.begin(), last, keys_.end(), std::greater<>());
    least_ = static_cast<std::uint32_t>(*last >> 32);
    keys_.resize(wanted_);
  }

  std::size_t wanted_;
  std::uint32_t least_ = 0;
  std::vector<std::uint64_t> keys_;
};

// The answers of one image.
template <typename T>
struct Image {
  const T *logits, *boxes;
  std::int64_t queries, columns, top;
  float* scores;
  std::int64_t* labels;
  float* corners;
};

template <typename T>
void decode_pairs(const Image<T>& image) {
  Best best(static_cast<std::size_t>(image.top));
  for (std::int64_t i = 0; i < image.queries * image.columns; ++i) {
    best.offer(to_float(image.logits[i]), i);
  }
  std::int64_t k = 0;
  for (const std::uint64_t key : best.sorted()) {
    const std::int64_t index = index_of(key);
    image.scores[k] = share_of(to_float(image.logits[index]));
    image.labels[k] = index % image.columns;
    write_corners(image.boxes + index / image.columns * 4, image.corners + 4 * k);
    ++k;
  }
}

struct BestClass {
  float score;
  std::int64_t label;
};

template <typename T>
BestClass best_class(const T* logits, std::int64_t columns) {
  std::int64_t label = 0;
  for (std::int64_t c = 1; c + 1 < columns; ++c) {
    if (to_float(logits[c]) > to_float(logits[label])) label = c;
  }
  const float best = to_float(logits[label]);
  const float highest = most(best, to_float(logits[columns - 1]));
  float sum = 0.0F;
  for (std::int64_t c = 0; c < columns; ++c) sum += std::exp(to_float(logits[c]) - highest);
  return {std::exp(best - highest) / sum, label};
}

template <typename T>
void decode_queries(const Image<T>& image) {
  std::vector<BestClass> classes(static_cast<std::size_t>(image.queries));
  Best best(static_cast<std::size_t>(image.top));
  for (std::int64_t q = 0; q < image.queries; ++q) {
    const auto found = best_class(image.logits + q * image.columns, image.columns);
    classes[static_cast<std::size_t>(q)] = found;
    best.offer(found.score, q);
  }
  std::int64_t k = 0;
  for (const std::uint64_t key : best.sorted()) {
    const std::int64_t query = index_of(key);
    image.scores[k] = classes[static_cast<std::size_t>(query)].score;
    image.labels[k] = classes[static_cast<std::size_t>(query)].label;
    write_corners(image.boxes + 4 * query, image.corners + 4 * k);
    ++k;
  }
}

}  // namespace

void decode(const AnyView<3>& logits, const AnyView<3>& boxes, Decoding decoding,
            const TensorView<float, 2>& scores, const TensorView<std::int64_t, 2>& labels,
            const TensorView<float, 3>& corners, int threads) {
  const std::int64_t images = logits.shape[0], queries = logits.shape[1], columns = logits.shape[2];
  const std::int64_t top = scores.shape[1];
  const bool pairs = decoding == Decoding::pairs;
  require_device("decode", "logits", logits, Device::cpu);
  require_device("decode", "boxes", boxes, Device::cpu);
  require_shape("decode", "boxes", boxes, {images, queries, 4});
  require_shape("decode", "scores", scores, {images, top});
  require_shape("decode", "labels", labels, {images, top});
  require_shape("decode", "corners", corners, {images, top, 4});
  require_contiguous("decode", "logits", logits);
  require_contiguous("decode", "boxes", boxes);
  require_contiguous("decode", "scores", scores);
  require_contiguous("decode", "labels", labels);
  require_contiguous("decode", "corners", corners);
  require(boxes.dtype == logits.dtype, "[decode] boxes must be ", text(logits.dtype), ", got ",
          text(boxes.dtype));
  require(pairs || columns > 1, "[decode] queries compete by a class beside \"no object\"");
  require(queries * columns <= 0x7fffffff && top <= (pairs ? queries * columns : queries),
          "[decode] at most ", pairs ? queries * columns : queries, " can be answered, got ", top);
  if (top == 0) return;
  dispatch_float(logits.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    parallel(images, threads, [&](std::int64_t b) {
      const Image<T> image{static_cast<const T*>(logits.data) + b * queries * columns,
                           static_cast<const T*>(boxes.data) + b * queries * 4,
                           queries,
                           columns,
                           top,
                           scores.data + b * top,
                           labels.data + b * top,
                           corners.data + b * top * 4};
      pairs ? decode_pairs(image) : decode_queries(image);
    });
  });
}

}  // namespace detrx::cpu
