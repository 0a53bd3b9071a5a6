#include "cuda/assign.h"

#include <algorithm>
#include <limits>

#include "cuda/arguments.h"

namespace detrx::cuda {
namespace {

// What a block may have of shared memory without asking for more, less what the solver itself uses.
constexpr std::int64_t kSharedMemory = 44 * 1024;

std::int32_t narrow(std::int64_t size) {
  require(size <= std::numeric_limits<std::int32_t>::max() / 32,
          "[assign] at most 2^26 targets and queries, got ", size);
  return static_cast<std::int32_t>(size);
}

}  // namespace

AssignPlan plan_assign(std::int64_t targets, std::int64_t queries) {
  const std::int64_t rows = std::min(targets, queries), columns = std::max(targets, queries);
  const std::int64_t wanted = divide_up(divide_up(columns, kColumnsOfThread), kWarp) * kWarp;
  AssignPlan plan{};
  plan.registers = wanted <= kSolveThreads;
  plan.threads = static_cast<int>(std::clamp<std::int64_t>(wanted, kWarp, kSolveThreads));
  const std::int64_t bytes = table_bytes(rows, columns, plan.registers);
  if (bytes <= kSharedMemory) {
    plan.shared = static_cast<int>(bytes);
  } else {
    plan.workspace = bytes;
  }
  return plan;
}

std::int64_t assign_workspace(std::int64_t problems, std::int64_t targets, std::int64_t queries) {
  return problems * plan_assign(targets, queries).workspace;
}

void assign(const AnyView<3>& cost, const AnyView<1>& counts, const AnyView<2>& match,
            const AnyView<1>& bad, const AnyView<1>& workspace, std::int64_t stream) {
  const auto [problems, targets, queries] = cost.shape;
  const std::int64_t images = counts.shape[0];
  require(images > 0 ? problems % images == 0 : problems == 0,
          "[assign] there must be as many counts as problems, or a whole share of them, got ",
          images, " for ", problems);
  const Arguments arguments("assign", cost.device_index);
  const AssignPlan plan = plan_assign(targets, queries);
  Assignment p{};
  p.cost = arguments.items<const float>("cost", cost, cost.shape);
  p.counts = arguments.items<const std::int32_t>("counts", counts, {images});
  p.match = arguments.items<std::int32_t>("match", match, {problems, targets});
  p.bad = arguments.items<std::int32_t>("bad", bad, {problems});
  p.problems = problems;
  p.images = images;
  p.targets = narrow(targets);
  p.queries = narrow(queries);
  p.bytes = plan.workspace;
  const std::int64_t bytes = problems * plan.workspace;
  auto* const memory = arguments.items<unsigned char>("workspace", workspace, {bytes});
  p.workspace = bytes > 0 ? memory : nullptr;
  launch_assign(p, plan, stream_of(stream));
}

}  // namespace detrx::cuda
