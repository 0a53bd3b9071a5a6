// Rows of a picture at the columns of a canvas.
#pragma once

#include <cstdint>
#include <vector>

#include "core/letterbox.h"
#include "cpu/pixel_rows.h"

namespace detrx::cpu {

// Where all columns of the canvas read; made once for a picture.
struct Columns {
  Columns(const PixelRows& pixels, std::int64_t wanted);

  std::int64_t count;
  std::int64_t padded;                      // to whole steps of the kernels
  std::vector<std::int32_t> first, second;  // columns of the picture
  std::vector<std::int32_t> offset;         // bytes from where the two pixels are read
  std::vector<std::int16_t> weights;  // both weights, four times over, for a kernel's registers
  std::int64_t safe;  // for so many columns eight bytes may be read, whole steps of them
};

// What one thread resamples; it keeps the last two rows, which neighbours on the canvas share.
class ResampledRows {
 public:
  ResampledRows(const PixelRows& pixels, const Columns& columns);

  // Red, green, blue and nothing of each column, as 1/128 of a level. Valid until a row is asked
  // for while another is `kept`.
  const std::int16_t* get(std::int64_t y, std::int64_t kept);

 private:
  void make(std::int64_t y, std::int16_t* to) const;

  const PixelRows& pixels_;
  const Columns& columns_;
  std::int32_t* words_;
  std::uint8_t* tail_;
  std::int16_t* rows_;
  std::int64_t held_[2] = {-1, -1};
};

}  // namespace detrx::cpu
