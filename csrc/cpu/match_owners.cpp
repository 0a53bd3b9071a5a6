#include "cpu/match_owners.h"

#include <algorithm>
#include <vector>

namespace detrx::cpu {
namespace {

// The target with the most votes; the lowest-numbered among equals. votes is sorted on the way.
std::int32_t winner(std::vector<std::int32_t>& votes) {
  std::sort(votes.begin(), votes.end());
  std::int32_t best = -1;
  std::ptrdiff_t most = 0;
  for (auto first = votes.begin(); first != votes.end();) {
    const auto last = std::upper_bound(first, votes.end(), *first);
    if (last - first > most) {
      most = last - first;
      best = *first;
    }
    first = last;
  }
  return best;
}

}  // namespace

void owners(TensorView<const std::int32_t, 2> match, TensorView<std::int32_t, 2> owners) {
  const std::int64_t targets = match.shape[1], queries = owners.shape[1];
  require_shape("owners", "owners", owners, {match.shape[0], queries});
  require_contiguous("owners", "match", match);
  require_contiguous("owners", "owners", owners);
  std::fill_n(owners.data, owners.size(), -1);
  for (std::int64_t n = 0; n < match.shape[0]; ++n) {
    const std::int32_t* const query = match.data + n * targets;
    for (std::int64_t t = 0; t < targets; ++t) {
      require(query[t] >= -1 && query[t] < queries, "[owners] queries must be in [0, ", queries,
              ") or -1, got ", query[t], " for target ", t, " of problem ", n);
      if (query[t] >= 0) owners.data[n * queries + query[t]] = static_cast<std::int32_t>(t);
    }
  }
}

void agree(TensorView<const std::int32_t, 2> owners, TensorView<std::int32_t, 1> agreed) {
  const std::int64_t stages = owners.shape[0], count = owners.shape[1];
  require_shape("agree", "agreed", agreed, {count});
  require_contiguous("agree", "owners", owners);
  require_contiguous("agree", "agreed", agreed);
  std::vector<std::int32_t> votes;
  for (std::int64_t i = 0; i < count; ++i) {
    votes.clear();
    for (std::int64_t stage = 0; stage < stages; ++stage) {
      const std::int32_t target = owners.data[stage * count + i];
      if (target >= 0) votes.push_back(target);
    }
    agreed.data[i] = winner(votes);
  }
}

}  // namespace detrx::cpu
