#include "cuda/attention.h"

#include <limits>

#include "core/half.h"
#include "cuda/arguments.h"

namespace detrx::cuda {
namespace {

std::int32_t narrow(std::int64_t size) {
  require(size >= 0 && size <= std::numeric_limits<std::int32_t>::max() / 2,
          "[attention] a size must fit 30 bits, got ", size);
  return static_cast<std::int32_t>(size);
}

}  // namespace

void attention(const AttentionProblem& p, Dtype dtype, Stream stream) {
  for (const void* const at : {p.query, p.key, p.value, static_cast<const void*>(p.out)}) {
    require(aligned(at), "[attention] memory must start at a multiple of 16 bytes");
  }
  if (dtype == Dtype::float16) return launch_tensor_attention(p, stream);
  if (dtype == Dtype::bfloat16) return launch_attention<Bfloat16>(p, stream);
  require(dtype == Dtype::float32, "[attention] is of float32, float16 or bfloat16, got ",
          text(dtype));
  launch_attention<float>(p, stream);
}

void attention(const AnyView<3>& query, const AnyView<3>& key, const AnyView<3>& value,
               const std::optional<AnyView<2>>& bias, std::int64_t heads, float scale,
               const AnyView<3>& out, std::int64_t stream) {
  const Arguments arguments("attention", query.device_index);
  const std::int64_t images = query.shape[0], keys = key.shape[1], width = query.shape[2];
  require(heads > 0 && width == heads * kHead, "[attention] query must have ", kHead,
          " channels for each of ", heads, " heads, got ", width);
  for (const AnyView<3>* const like : {&key, &value, &out}) {
    require(like->dtype == query.dtype, "[attention] all must be ", text(query.dtype), ", got ",
            text(like->dtype));
  }
  AttentionProblem p{};
  p.query = arguments.memory("query", query, query.shape);
  p.key = arguments.memory("key", key, {images, keys, width});
  p.value = arguments.memory("value", value, {images, keys, width});
  if (bias) p.bias = arguments.items<const float>("bias", *bias, {images, keys});
  p.out = arguments.memory("out", out, query.shape);
  p.images = images;
  p.queries = narrow(query.shape[1]);
  p.keys = narrow(keys);
  p.heads = narrow(heads);
  p.scale = scale;
  attention(p, query.dtype, stream_of(stream));
}

}  // namespace detrx::cuda
