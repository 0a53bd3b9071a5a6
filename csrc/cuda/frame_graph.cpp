#include "cuda/frame_graph.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/half.h"
#include "cuda/decode.h"
#include "cuda/letterbox.h"
#include "cuda/shape.h"

namespace detrx::cuda {
namespace {

constexpr std::int64_t kAlign = 256;  // bytes; what textures and copies want of a pitch

std::int64_t bytes_of(PixelFormat format) {
  if (format == PixelFormat::rgb || format == PixelFormat::bgr) return 3;
  if (format == PixelFormat::rgba || format == PixelFormat::bgra) return 4;
  return format == PixelFormat::yuyv ? 2 : 1;
}

std::size_t size_of(std::int64_t items, Dtype dtype) {
  const std::int64_t each = dtype == Dtype::uint8 ? 1 : dtype == Dtype::float32 ? 4 : 2;
  return static_cast<std::size_t>(std::max<std::int64_t>(items * each, 1));
}

void require_plan(const FramePlan& plan, int slots) {
  const Window& window = plan.window;
  require(slots >= 1 && slots <= FrameGraph::kMostSlots, "[frame_graph] slots must be 1 to ",
          FrameGraph::kMostSlots, ", got ", slots);
  require(plan.height > 0 && plan.width > 0 &&
              (plan.format != PixelFormat::yuyv || plan.width % 2 == 0),
          "[frame_graph] no picture has ", plan.height, " x ", plan.width, " pixels");
  const bool fits = window.top >= 0 && window.left >= 0 && window.height > 0 && window.width > 0 &&
                    window.top + window.height <= plan.canvas_height &&
                    window.left + window.width <= plan.canvas_width;
  require(fits, "[frame_graph] the picture must lie within the canvas of ", plan.canvas_height,
          " x ", plan.canvas_width);
  require(can_decode(plan.queries, plan.columns, plan.top, plan.decoding),
          "[frame_graph] of logits (", plan.queries, ", ", plan.columns,
          ") so many cannot be answered: ", plan.top);
}

}  // namespace

FrameGraph::FrameGraph(std::unique_ptr<FrameDevice> device, const FramePlan& plan, int slots,
                       const Engine& engine)
    : device_(std::move(device)), plan_(plan), count_(slots) {
  require_plan(plan, slots);
  pitch_ = divide_up(plan.width * bytes_of(plan.format), kAlign) * kAlign;
  rows_ = plan.height + (plan.format == PixelFormat::nv12 ? (plan.height + 1) / 2 : 0);
  std::vector<Tap> taps(static_cast<std::size_t>(letterbox_taps(plan.window)));
  letterbox_taps(plan.window, plan.height, plan.width, taps.data());
  auto* const table = static_cast<Tap*>(device_->allocate(taps.size() * sizeof(Tap)));
  device_->upload(table, taps.data(), taps.size() * sizeof(Tap));
  const EngineMemory memory{
      device_->allocate(size_of(3 * plan.canvas_height * plan.canvas_width, plan.pixels)),
      device_->allocate(size_of(plan.queries * plan.columns, plan.answers)),
      device_->allocate(size_of(plan.queries * 4, plan.answers))};
  void* const workspace =
      device_->allocate(size_of(decode_workspace(1, plan.queries, plan.decoding), Dtype::uint8));
  for (int slot = 0; slot < slots; ++slot) make_slot(slot, table, memory, workspace, engine);
}

void FrameGraph::make_slot(int number, const Tap* taps, const EngineMemory& memory, void* workspace,
                           const Engine& engine) {
  Slot& slot = slots_[static_cast<std::size_t>(number)];
  slot.input = device_->share(static_cast<std::size_t>(rows_ * pitch_));
  slot.scores = device_->share(size_of(plan_.top, Dtype::float32));
  slot.labels = device_->share(size_of(plan_.top, Dtype::float32));  // int32, as wide
  slot.corners = device_->share(size_of(4 * plan_.top, Dtype::float32));
  std::fill_n(input(number), rows_ * pitch_, std::uint8_t{0});
  slot.graph = device_->capture(
      [&](Stream stream) { enqueue(slot, taps, memory, workspace, engine, stream); });
  slot.use = Use::free;
}

void FrameGraph::enqueue(const Slot& slot, const Tap* taps, const EngineMemory& memory,
                         void* workspace, const Engine& engine, Stream stream) const {
  LetterboxProblem laid{};
  laid.picture.plane = static_cast<const std::uint8_t*>(slot.input.device);
  laid.picture.pitch = pitch_;
  if (plan_.format == PixelFormat::nv12) {
    laid.picture.chroma = laid.picture.plane + plan_.height * pitch_;
    laid.picture.chroma_pitch = pitch_;
  }
  laid.picture.height = plan_.height;
  laid.picture.width = plan_.width;
  laid.picture.format = plan_.format;
  laid.picture.colours = plan_.colours;
  laid.window = plan_.window;
  laid.normal = plan_.normal;
  laid.out = memory.pixels;
  laid.height = plan_.canvas_height;
  laid.width = plan_.canvas_width;
  letterbox(laid, taps, plan_.pixels, stream);

  engine(memory, stream);

  DecodeProblem found{};
  found.logits = memory.logits;
  found.boxes = memory.boxes;
  found.images = 1;
  found.queries = plan_.queries;
  found.columns = plan_.columns;
  found.top = plan_.top;
  found.decoding = plan_.decoding;
  found.scores = static_cast<float*>(slot.scores.device);
  found.labels = slot.labels.device;
  found.corners = static_cast<float*>(slot.corners.device);
  dispatch_float(plan_.answers, [&](auto type) {
    decode<typename decltype(type)::type>(found, workspace, stream);
  });
}

int FrameGraph::begin() {
  const std::lock_guard<std::mutex> lock(state_);
  for (int slot = 0; slot < count_; ++slot) {
    Use& use = slots_[static_cast<std::size_t>(slot)].use;
    if (use != Use::free) continue;
    use = Use::filling;
    return slot;
  }
  return -1;
}

std::uint8_t* FrameGraph::input(int slot) const {
  require(slot >= 0 && slot < count_, "[frame_graph] there is no slot ", slot);
  return static_cast<std::uint8_t*>(slots_[static_cast<std::size_t>(slot)].input.host);
}

FrameGraph::Slot& FrameGraph::filling(int slot) {
  const bool known = slot >= 0 && slot < count_;
  require(known && slots_[static_cast<std::size_t>(slot)].use == Use::filling,
          "[frame_graph] slot ", slot, " is not one that begin answered");
  return slots_[static_cast<std::size_t>(slot)];
}

void FrameGraph::submit(int slot) {
  const std::lock_guard<std::mutex> lock(state_);
  Slot& chosen = filling(slot);
  chosen.use = Use::free;  // should the launch throw
  device_->launch(chosen.graph);
  chosen.use = Use::flying;
  order_[static_cast<std::size_t>((first_ + flying_) % kMostSlots)] = slot;
  ++flying_;
}

void FrameGraph::cancel(int slot) {
  const std::lock_guard<std::mutex> lock(state_);
  filling(slot).use = Use::free;
}

int FrameGraph::flying() const {
  const std::lock_guard<std::mutex> lock(state_);
  return flying_;
}

bool FrameGraph::ready() {
  const std::lock_guard<std::mutex> lock(state_);
  if (flying_ == 0) return false;
  const auto oldest = static_cast<std::size_t>(order_[static_cast<std::size_t>(first_)]);
  return device_->done(slots_[oldest].graph);
}

int FrameGraph::take(float* scores, std::int32_t* labels, float* corners) {
  int number = -1;
  {
    const std::lock_guard<std::mutex> lock(state_);
    if (flying_ == 0) return -1;
    number = order_[static_cast<std::size_t>(first_)];
    first_ = (first_ + 1) % kMostSlots;
    --flying_;
    slots_[static_cast<std::size_t>(number)].use = Use::taking;
  }
  Slot& slot = slots_[static_cast<std::size_t>(number)];
  // The slot is free again also where the wait throws.
  const auto give_back = [this](Slot* taken) {
    const std::lock_guard<std::mutex> lock(state_);
    taken->use = Use::free;
  };
  const std::unique_ptr<Slot, decltype(give_back)> held(&slot, give_back);
  device_->wait(slot.graph);
  std::copy_n(static_cast<const float*>(slot.scores.host), plan_.top, scores);
  std::copy_n(static_cast<const std::int32_t*>(slot.labels.host), plan_.top, labels);
  std::copy_n(static_cast<const float*>(slot.corners.host), 4 * plan_.top, corners);
  return number;
}

}  // namespace detrx::cuda
