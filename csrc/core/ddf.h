// The weights of D-FINE's decoupled distillation focal loss (arXiv 2410.13842).
#pragma once

#include <cmath>

#include "core/inline.h"

namespace detrx {

// What a query's divergence, summed over four edges, is multiplied by beside its own weight.
struct DdfFactors {
  float owning;  // where it owns a target
  float other;
};

// The mean over `owning` queries and the mean over `others`, weighed by the roots of their numbers.
// Softening divides gradients by the square of the temperature, which is made good here.
DETRX_HD inline DdfFactors ddf_factors(float owning, float others, float temperature) {
  const float a = std::sqrt(owning), b = std::sqrt(others);
  const float unit = temperature * temperature / 4.0F / (a + b > 1.0F ? a + b : 1.0F);
  return {unit / (a > 1.0F ? a : 1.0F), unit / (b > 1.0F ? b : 1.0F)};
}

}  // namespace detrx
