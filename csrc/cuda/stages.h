// What the kernels of the losses are given: L stages of B images with Q queries each. A block takes
// kQueries queries of one image of one stage and adds up its share of the sums, in a fixed order;
// stage_sums.cu adds up the shares. So no two threads ever add to one number.
#pragma once

#include <cstdint>

#include "core/box.h"
#include "core/focal.h"
#include "cuda/launch.h"
#include "cuda/shape.h"

namespace detrx::cuda {

constexpr int kQueries = 32;

struct Stages {
  std::int64_t stages, images, queries, targets;
  const std::int32_t* owners;  // the target of each query; what is not in [0, targets) is none
  std::int64_t owner_step;     // from stage to stage: 0 where all stages share the owners
  const float* normaliser;     // () or null for 1
};

struct StageSums {
  std::int64_t stages;
  std::int64_t shares;      // of each stage
  const float* parts;       // (stages, shares, 2)
  const float* normaliser;  // () or null for 1
  float* sums[2];           // (stages,) written where not null
  bool mean;                // divide the first sum by the second, which is at least kTinyWeight
};

constexpr float kTinyWeight = 1e-12F;

struct BoxLoss {
  Stages stages;
  const void* boxes;    // (L, B, Q, 4)
  const float* truths;  // (B, M, 4)
  Overlap kind;
  float* iou;              // (L, B, Q) written
  float* parts;            // (L, B, blocks, 2) written
  const float* grad_l1;    // (L,)
  const float* grad_away;  // (L,)
  void* grad_boxes;        // (L, B, Q, 4) written
};

struct FocalLoss {
  Stages stages;
  const void* logits;          // (L, B, Q, C)
  const std::int64_t* labels;  // (B, M)
  const float* quality;        // (L, B, Q) or null
  std::int32_t classes;
  FocalTerms terms;
  float* parts;
  const float* grad;  // (L,)
  void* grad_logits;  // written
};

struct CrossEntropy {
  Stages stages;
  const void* logits;          // (L, B, Q, C + 1)
  const std::int64_t* labels;  // (B, M)
  std::int32_t classes;        // C + 1
  float no_object;
  float* log_sums;  // (L, B, Q) written on the way forward, read on the way back
  float* parts;
  const float* weights;  // (L,) the second sum
  const float* grad;     // (L,)
  void* grad_logits;     // written
};

struct DdfLoss {
  Stages stages;            // that a launch works on: the students, or on the way back all
  std::int64_t students;    // L - 1, the number of the stage that teaches
  const void* edges;        // (L, B, Q, 4, values)
  const float* confidence;  // (B, Q)
  const float* iou;         // (L, B, Q)
  std::int32_t values;
  float scale;          // 1 / temperature
  float* log_sums;      // (L, B, Q, 4) written on the way forward, read on the way back
  const float* counts;  // (L - 1, 2) queries with and without a target
  float* parts;         // (L - 1, B, blocks, 2) written
  std::int64_t shares;  // of each stage in parts
  float* sums;          // (L - 1,) written
  const float* grad;    // (L - 1,)
  void* grad_edges;     // written
};

struct FglLoss {
  Stages stages;
  const void* edges;        // (L, B, Q, 4, bins + 1)
  const float* references;  // (L, B, Q, 4)
  const float* truths;      // (B, M, 4)
  const float* iou;         // (L, B, Q)
  std::int32_t bins;
  float reg_scale, bound;
  float* parts;
  const float* grad;  // (L,)
  void* grad_edges;   // written
};

// T, the type of what takes the gradient, is float, Half or Bfloat16.
void launch_stage_sums(const StageSums& problem, Stream stream);
template <typename T>
void launch_box_loss(const BoxLoss& problem, bool backward, Stream stream);
template <typename T>
void launch_focal_loss(const FocalLoss& problem, bool backward, Stream stream);
template <typename T>
void launch_cross_entropy(const CrossEntropy& problem, bool backward, Stream stream);
template <typename T>
void launch_ddf_loss(const DdfLoss& problem, bool backward, Stream stream);
void launch_ddf_sums(const DdfLoss& problem, Stream stream);
template <typename T>
void launch_fgl_loss(const FglLoss& problem, bool backward, Stream stream);

inline Grid grid_of(const Stages& s) {
  return {divide_up(s.queries, kQueries), s.images, s.stages};
}

}  // namespace detrx::cuda
