// What the losses of this folder ask of their common arguments.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>

#include "core/tensor_view.h"
#include "cuda/arguments.h"
#include "cuda/stages.h"

namespace detrx::cuda {

// A divisor () on the device, as (1,), or none for 1.
using Normaliser = std::optional<AnyView<1>>;

// How many parts (stages, loss_parts, 2) float32 hold the shares of the sums of each stage.
inline std::int64_t loss_parts(std::int64_t images, std::int64_t queries) {
  return images * divide_up(queries, kQueries);
}

// A call of a loss, of stages L, images B and queries Q that boxes, logits or edges begin with.
class StageArguments : public Arguments {
 public:
  template <std::size_t Rank>
  StageArguments(const char* where, const AnyView<Rank>& first, std::int64_t targets)
      : Arguments(where, first.device_index),
        stages_(first.shape[0]),
        images_(first.shape[1]),
        queries_(first.shape[2]),
        targets_(targets) {
    require(queries_ <= std::numeric_limits<std::int32_t>::max() - kQueries, "[", where,
            "] queries must fit 31 bits, got ", queries_);
  }

  Stages stages(const AnyView<3>& owners, const Normaliser& normaliser) const {
    const bool shared = owners.shape[0] == 1;
    Stages s{};
    s.stages = stages_;
    s.images = images_;
    s.queries = queries_;
    s.targets = targets_;
    s.owners =
        items<const std::int32_t>("owners", owners, {shared ? 1 : stages_, images_, queries_});
    s.owner_step = shared ? 0 : images_ * queries_;
    s.normaliser = divisor(normaliser);
    return s;
  }

  StageSums sums(const AnyView<3>& parts, const Normaliser& normaliser) const {
    StageSums s{};
    s.stages = stages_;
    s.shares = loss_parts(images_, queries_);
    s.parts = share(parts);
    s.normaliser = divisor(normaliser);
    return s;
  }

  float* share(const AnyView<3>& parts) const {
    return items<float>("parts", parts, {stages_, loss_parts(images_, queries_), 2});
  }

  float* of_stages(const char* name, const AnyView<1>& tensor) const {
    return items<float>(name, tensor, {stages_});
  }

  float* of_queries(const char* name, const AnyView<3>& tensor) const {
    return items<float>(name, tensor, {stages_, images_, queries_});
  }

  const std::int64_t* labels(const AnyView<2>& tensor) const {
    return items<const std::int64_t>("labels", tensor, {images_, targets_});
  }

  const float* truths(const AnyView<3>& tensor) const {
    return items<const float>("truths", tensor, {images_, targets_, 4});
  }

 private:
  const float* divisor(const Normaliser& normaliser) const {
    return normaliser ? items<const float>("normaliser", *normaliser, {1}) : nullptr;
  }

  std::int64_t stages_, images_, queries_, targets_;
};

}  // namespace detrx::cuda
