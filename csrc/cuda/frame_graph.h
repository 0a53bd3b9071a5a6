// A camera's frames through letterbox, engine and decode: captured once for each buffer slot, then
// one launch and one wait a frame. Memory is asked for when it is made, and never again.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "core/letterbox.h"
#include "core/picture.h"
#include "core/tensor_view.h"
#include "cuda/decoding.h"
#include "cuda/frame_device.h"

namespace detrx::cuda {

// What does not change from frame to frame.
struct FramePlan {
  PixelFormat format = PixelFormat::bgr;
  Colours colours = Colours::bt601;
  std::int64_t height = 0, width = 0;                // of the picture
  std::int64_t canvas_height = 0, canvas_width = 0;  // of the engine's input
  Window window{};
  Normalisation normal{};
  Dtype pixels = Dtype::float32;   // the engine's input (1, 3, h, w)
  Dtype answers = Dtype::float32;  // its logits (1, Q, C) and boxes (1, Q, 4)
  std::int64_t queries = 0, columns = 0, top = 0;
  Decoding decoding = Decoding::pairs;
};

// The engine's memory on the device.
struct EngineMemory {
  void *pixels, *logits, *boxes;
};

// Enqueues the engine on the stream. It is called while frames are captured, not for each frame.
using Engine = std::function<void(const EngineMemory&, Stream)>;

// One thread may fill and submit while another takes. Frames run in the order of submit, one after
// the other, and so share the engine's memory; a slot is what the host writes and reads.
class FrameGraph {
 public:
  static constexpr int kMostSlots = 8;

  FrameGraph(std::unique_ptr<FrameDevice> device, const FramePlan& plan, int slots,
             const Engine& engine);

  // A slot to write a picture to, or -1 while all are in use.
  int begin();

  // The host's memory of a slot: rows() rows, pitch() bytes apart; of nv12 those of chroma follow
  // those of luma.
  std::uint8_t* input(int slot) const;
  std::int64_t rows() const noexcept { return rows_; }
  std::int64_t pitch() const noexcept { return pitch_; }

  // Launches the frame of a slot that begin answered, or gives the slot back unused. A launch that
  // fails gives it back too.
  void submit(int slot);
  void cancel(int slot);

  // How many frames were submitted and not taken, and whether the oldest is done.
  int flying() const;
  bool ready();

  // Waits for the oldest frame, writes its (K,) scores and labels and (K, 4) corners, and frees the
  // slot, which it answers; -1 where none was submitted.
  int take(float* scores, std::int32_t* labels, float* corners);

  std::int64_t top() const noexcept { return plan_.top; }

 private:
  enum class Use : std::uint8_t { free, filling, flying, taking };
  struct Slot {
    FrameDevice::Shared input, scores, labels, corners;
    int graph;
    Use use;
  };

  void make_slot(int slot, const Tap* taps, const EngineMemory& memory, void* workspace,
                 const Engine& engine);
  void enqueue(const Slot& slot, const Tap* taps, const EngineMemory& memory, void* workspace,
               const Engine& engine, Stream stream) const;
  Slot& filling(int slot);

  std::unique_ptr<FrameDevice> device_;
  FramePlan plan_;
  std::int64_t pitch_, rows_;
  int count_;
  std::array<Slot, kMostSlots> slots_{};
  mutable std::mutex state_;
  std::array<int, kMostSlots> order_{};  // a ring of the slots in flight, the oldest at first_
  int first_ = 0, flying_ = 0;
};

}  // namespace detrx::cuda
