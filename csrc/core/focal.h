// The sigmoid class losses, one logit at a time: focal (arXiv 1708.02002), varifocal (arXiv
// 2008.13367) and matching-aware (DEIM, arXiv 2412.04234).
#pragma once

#include <cmath>

#include "core/inline.h"

namespace detrx {

enum class FocalKind : int { focal, varifocal, mal };

// What a logit costs, and the slope of that along the logit.
struct Term {
  float loss, slope;
};

// The same for every logit of a call.
struct FocalTerms {
  FocalKind kind;
  float gamma;
  float positive;  // weight of a positive of kind focal
  float negative;  // weight of a negative
  float through;   // how much of the weight's own slope counts: gamma for focal, else 0
};

// alpha is focal's share of the positives; for varifocal it weighs the negatives, and mal does
// without.
DETRX_HD inline FocalTerms focal_terms(FocalKind kind, float alpha, float gamma) {
  if (kind == FocalKind::mal) return {kind, gamma, 1.0F, 1.0F, 0.0F};
  if (kind == FocalKind::varifocal) return {kind, gamma, 1.0F, alpha, 0.0F};
  return {kind, gamma, alpha, 1.0F - alpha, gamma};
}

struct Logit {
  float p;         // its sigmoid
  float rest;      // 1 - p, exact where p is near 1
  float softplus;  // -log(1 - p); of the opposite logit: softplus - x
};

DETRX_HD inline Logit open_logit(float x) {
  const float e = std::exp(-std::fabs(x));
  const float large = 1.0F / (1.0F + e), small = e * large;
  const float softplus = std::log1p(e) + (x < 0 ? 0.0F : x);
  return x < 0 ? Logit{small, large, softplus} : Logit{large, small, softplus};
}

DETRX_HD inline float power(float base, float gamma) {
  return gamma == 2.0F ? base * base : std::pow(base, gamma);
}

// A cell without a target.
DETRX_HD inline Term focal_negative(const FocalTerms& t, float x) {
  const Logit logit = open_logit(x);
  const float weight = t.negative * power(logit.p, t.gamma);
  return {weight * logit.softplus, weight * (logit.p + t.through * logit.rest * logit.softplus)};
}

// The cell of a target's class; quality in [0, 1] is not used by focal.
DETRX_HD inline Term focal_positive(const FocalTerms& t, float x, float quality) {
  const Logit logit = open_logit(x);
  if (t.kind == FocalKind::focal) {
    const float weight = t.positive * power(logit.rest, t.gamma);
    const Logit other = open_logit(-x);
    return {weight * other.softplus, -weight * (logit.rest + t.gamma * logit.p * other.softplus)};
  }
  const float wanted = t.kind == FocalKind::mal ? power(quality, t.gamma) : quality;
  const float weight = t.kind == FocalKind::mal ? 1.0F : quality;
  return {weight * (logit.softplus - x * wanted), weight * (logit.p - wanted)};
}

}  // namespace detrx
