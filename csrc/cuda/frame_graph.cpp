#include "cuda/frame_graph.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "cuda/letterbox.h"

namespace detrx::cuda {
namespace {

using Plane = TensorView<const std::uint8_t, 3>;

constexpr std::size_t kTaps = (sizeof(LetterboxProblem) + 15) / 16 * 16;  // where they begin

std::size_t size_of(std::int64_t items, Dtype dtype) {
  const std::int64_t each = dtype == Dtype::uint8 ? 1 : dtype == Dtype::float32 ? 4 : 2;
  return static_cast<std::size_t>(std::max<std::int64_t>(items * each, 1));
}

std::int64_t bytes_of(PixelFormat format) {
  if (format == PixelFormat::rgb || format == PixelFormat::bgr) return 3;
  if (format == PixelFormat::rgba || format == PixelFormat::bgra) return 4;
  return format == PixelFormat::yuyv ? 2 : 1;
}

void require_plane(const char* name, const Plane& plane, std::int64_t channels) {
  const bool adjacent = (plane.shape[2] == 1 || plane.stride[2] == 1) &&
                        (plane.shape[1] == 1 || plane.stride[1] == channels);
  require(plane.shape[2] == channels && plane.size() > 0 && adjacent, "[frame_graph] ", name,
          " must be (H, W, ", channels, ") with the pixels of a row adjacent, got ",
          text(plane.shape));
}

void require_picture(const HostPicture& picture) {
  require_plane("plane", picture.plane, bytes_of(picture.format));
  require(picture.chroma.has_value() == (picture.format == PixelFormat::nv12),
          "[frame_graph] nv12 has a plane of chroma, and no other format");
  require(picture.format != PixelFormat::yuyv || picture.plane.shape[1] % 2 == 0,
          "[frame_graph] the width of yuyv must be even, got ", picture.plane.shape[1]);
  if (!picture.chroma) return;
  require_plane("chroma", *picture.chroma, 2);
  require_shape("frame_graph", "chroma", *picture.chroma,
                {(picture.plane.shape[0] + 1) / 2, (picture.plane.shape[1] + 1) / 2, 2});
}

// Rows one after the other, without what lies between them; answers where they end.
std::uint8_t* copy_rows(const Plane& plane, std::uint8_t* to) {
  const auto row = static_cast<std::size_t>(plane.shape[1] * plane.shape[2]);
  const auto rows = static_cast<std::size_t>(plane.shape[0]);
  if (plane.contiguous()) {
    std::memcpy(to, plane.data, rows * row);
    return to + rows * row;
  }
  for (std::int64_t y = 0; y < plane.shape[0]; ++y, to += row) {
    std::memcpy(to, plane.data + y * plane.stride[0], row);
  }
  return to;
}

bool same(const DevicePicture& a, const DevicePicture& b) {
  return a.plane == b.plane && a.chroma == b.chroma && a.pitch == b.pitch &&
         a.chroma_pitch == b.chroma_pitch && a.texture == b.texture &&
         a.chroma_texture == b.chroma_texture && a.height == b.height && a.width == b.width &&
         a.format == b.format && a.colours == b.colours;
}

bool same(const Window& a, const Window& b) {
  return a.top == b.top && a.left == b.left && a.height == b.height && a.width == b.width;
}

}  // namespace

FrameGraph::FrameGraph(std::unique_ptr<FrameDevice> device, const FramePlan& plan, int slots,
                       const Engine& engine)
    : plan_(plan), device_(std::move(device)) {
  require(slots >= 1 && slots <= kMostSlots, "[frame_graph] slots must be 1 to ", kMostSlots,
          ", got ", slots);
  require(plan.canvas_height > 0 && plan.canvas_width > 0, "[frame_graph] no canvas has ",
          plan.canvas_height, " x ", plan.canvas_width, " pixels");
  pixels_ = device_->allocate(size_of(3 * plan.canvas_height * plan.canvas_width, plan.pixels));
  slots_.resize(static_cast<std::size_t>(slots));
  for (Slot& slot : slots_) make_slot(slot, pixels_, engine);
}

// What is captured lays a picture of one grey pixel until another comes.
void FrameGraph::make_slot(Slot& slot, void* pixels, const Engine& engine) {
  const auto sides = static_cast<std::size_t>(plan_.canvas_height + plan_.canvas_width);
  slot.place = device_->inlet(kTaps + sides * sizeof(Tap));
  make_room(slot, std::max<std::size_t>(plan_.picture, 1));
  std::vector<void*> answers;
  for (const std::size_t bytes : plan_.answers) {
    slot.answers.push_back(device_->outlet(std::max<std::size_t>(bytes, 1)));
    answers.push_back(slot.answers.back().device);
  }
  const std::uint8_t grey = 114;
  const HostPicture first{{&grey, {1, 1, 1}, {1, 1, 1}}, std::nullopt, PixelFormat::grey, {}};
  slot.use = Use::filling;
  put(static_cast<int>(&slot - slots_.data()), first, {0, 0, 1, 1});
  device_->send(slot.place, kTaps + 2 * sizeof(Tap));
  device_->send(slot.picture, slot.used);
  const LetterboxPlace place{static_cast<const LetterboxProblem*>(slot.place.device),
                             plan_.canvas_height, plan_.canvas_width};
  slot.graph = device_->capture([&](Stream stream) {
    letterbox(place, plan_.pixels, stream);
    engine(pixels, answers, stream);
  });
  slot.use = Use::free;
}

void FrameGraph::make_room(Slot& slot, std::size_t bytes) {
  if (bytes <= slot.room) return;
  const FrameDevice::Shared larger = device_->inlet(bytes);
  if (slot.room > 0) device_->release(slot.picture);
  slot.picture = larger;
  slot.room = bytes;
}

FrameGraph::Slot& FrameGraph::of(int slot, Use use, const char* what) {
  const bool known = slot >= 0 && slot < slots();
  require(known && slots_[static_cast<std::size_t>(slot)].use == use, "[frame_graph] slot ", slot,
          " is not one that ", what);
  return slots_[static_cast<std::size_t>(slot)];
}

int FrameGraph::begin() {
  const std::lock_guard<std::mutex> lock(state_);
  const auto unused = [](const Slot& slot) { return slot.use == Use::free; };
  const auto found = std::find_if(slots_.begin(), slots_.end(), unused);
  if (closed_ || found == slots_.end()) return -1;
  found->use = Use::filling;
  return static_cast<int>(found - slots_.begin());
}

void FrameGraph::put(int number, const HostPicture& picture, const Window& window) {
  require_picture(picture);
  std::unique_lock<std::mutex> lock(state_);
  Slot& slot = of(number, Use::filling, "begin answered");
  const std::int64_t luma = picture.plane.size(),
                     chroma = picture.chroma ? picture.chroma->size() : 0;
  make_room(slot, static_cast<std::size_t>(luma + chroma));
  lock.unlock();  // the slot is the caller's own
  std::uint8_t* const end = copy_rows(picture.plane, static_cast<std::uint8_t*>(slot.picture.host));
  if (picture.chroma) copy_rows(*picture.chroma, end);
  const auto* const plane = static_cast<const std::uint8_t*>(slot.picture.device);
  DevicePicture there{};
  there.plane = plane;
  there.pitch = picture.plane.shape[1] * picture.plane.shape[2];
  there.chroma = picture.chroma ? plane + luma : nullptr;
  there.chroma_pitch = picture.chroma ? 2 * picture.chroma->shape[1] : 0;
  there.height = picture.plane.shape[0];
  there.width = picture.plane.shape[1];
  there.format = picture.format;
  there.colours = picture.colours;
  lay(slot, there, window);
  slot.used = static_cast<std::size_t>(luma + chroma);
}

void FrameGraph::put(int number, const DevicePicture& picture, const Window& window) {
  Slot* slot = nullptr;
  {
    const std::lock_guard<std::mutex> lock(state_);
    slot = &of(number, Use::filling, "begin answered");
  }
  lay(*slot, picture, window);
  slot->used = 0;
}

// Writes the place, unless it is as the last picture left it.
void FrameGraph::lay(Slot& slot, const DevicePicture& picture, const Window& window) {
  const bool fits = window.top >= 0 && window.left >= 0 && window.height > 0 && window.width > 0 &&
                    window.top + window.height <= plan_.canvas_height &&
                    window.left + window.width <= plan_.canvas_width;
  require(fits, "[frame_graph] the picture must lie within the canvas of ", plan_.canvas_height,
          " x ", plan_.canvas_width);
  auto* const bytes = static_cast<unsigned char*>(slot.place.host);
  LetterboxProblem before;
  std::memcpy(&before, bytes, sizeof(before));
  if (slot.laid && same(before.picture, picture) && same(before.window, window)) return;
  const auto* const taps =
      reinterpret_cast<const Tap*>(static_cast<unsigned char*>(slot.place.device) + kTaps);
  const LetterboxProblem now{picture,      taps,    taps + window.height, window,
                             plan_.normal, pixels_, plan_.canvas_height,  plan_.canvas_width};
  std::memcpy(bytes, &now, sizeof(now));
  letterbox_taps(window, picture.height, picture.width, reinterpret_cast<Tap*>(bytes + kTaps));
  slot.laid = slot.moved = true;
}

void FrameGraph::submit(int number) {
  const std::lock_guard<std::mutex> lock(state_);
  Slot& slot = of(number, Use::filling, "begin answered");
  slot.use = Use::free;  // should something throw
  if (closed_) throw DeviceError("[frame_graph] it was closed; make a new Detector");
  LetterboxProblem laid;
  std::memcpy(&laid, slot.place.host, sizeof(laid));
  if (slot.moved) {
    const auto taps = static_cast<std::size_t>(letterbox_taps(laid.window));
    device_->send(slot.place, kTaps + taps * sizeof(Tap));
  }
  if (slot.used > 0) device_->send(slot.picture, slot.used);
  device_->launch(slot.graph);
  slot.moved = false;
  slot.use = Use::flying;
}

void FrameGraph::cancel(int number) {
  const std::lock_guard<std::mutex> lock(state_);
  of(number, Use::filling, "begin answered").use = Use::free;
}

void FrameGraph::take(int number, const std::vector<TensorView<std::uint8_t, 1>>& answers) {
  require(answers.size() == plan_.answers.size(), "[frame_graph] gives ", plan_.answers.size(),
          " answers, got room for ", answers.size());
  for (std::size_t i = 0; i < answers.size(); ++i) {
    require_shape("frame_graph", "an answer", answers[i],
                  {static_cast<std::int64_t>(plan_.answers[i])});
    require_contiguous("frame_graph", "an answer", answers[i]);
  }
  Slot* slot = nullptr;
  {
    const std::lock_guard<std::mutex> lock(state_);
    slot = &of(number, Use::flying, "was submitted");
    slot->use = Use::taking;
  }
  // The slot is free again also where the wait throws.
  const auto give_back = [this](Slot* taken) {
    const std::lock_guard<std::mutex> lock(state_);
    taken->use = Use::free;
  };
  const std::unique_ptr<Slot, decltype(give_back)> held(slot, give_back);
  device_->wait(slot->graph);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    std::memcpy(answers[i].data, slot->answers[i].host, plan_.answers[i]);
  }
}

void FrameGraph::close() {
  const std::lock_guard<std::mutex> lock(state_);
  closed_ = true;
  for (const Slot& slot : slots_) {
    if (slot.use == Use::flying || slot.use == Use::taking) device_->wait(slot.graph);
  }
}

}  // namespace detrx::cuda
