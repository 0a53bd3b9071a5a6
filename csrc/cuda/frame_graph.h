// A camera's frames through letterbox and engine: captured once for each buffer slot, then one
// launch and one wait a frame, whatever the size and the format of the picture. Memory is asked for
// when it is made, and once more only for a picture larger than all before.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "core/letterbox.h"
#include "core/picture.h"
#include "core/tensor_view.h"
#include "cuda/frame_device.h"
#include "cuda/letterboxing.h"

namespace detrx::cuda {

// What does not change from frame to frame.
struct FramePlan {
  std::int64_t canvas_height = 0, canvas_width = 0;  // of the engine's input (1, 3, h, w)
  Normalisation normal{};
  Dtype pixels = Dtype::float32;     // of the engine's input
  std::vector<std::size_t> answers;  // bytes of each of its outputs
  std::size_t picture = 0;           // bytes that a slot has room for from the start
};

// Enqueues all that comes after the letterbox on the stream, from the pixels to the answers, which
// are memory of the device. It is called while frames are captured, not for each frame.
using Engine = std::function<void(void* pixels, const std::vector<void*>& answers, Stream)>;

// A picture in the memory of the host; rows may be of any step, the pixels of one are adjacent.
struct HostPicture {
  TensorView<const std::uint8_t, 3> plane;
  std::optional<TensorView<const std::uint8_t, 3>> chroma;  // of nv12
  PixelFormat format;
  Colours colours;
};

// Any thread may call. Frames run in the order of submit, one after the other, and so share the
// engine's memory; a slot is what the host writes and reads, and of one caller at a time.
class FrameGraph {
 public:
  static constexpr int kMostSlots = 8;

  FrameGraph(std::unique_ptr<FrameDevice> device, const FramePlan& plan, int slots,
             const Engine& engine);

  int slots() const noexcept { return static_cast<int>(slots_.size()); }

  // A slot to put a picture into, or -1 while all are in use.
  int begin();

  // Copies a picture into a slot that begin answered, to be laid on this window of the canvas.
  void put(int slot, const HostPicture& picture, const Window& window);
  // The same for one that lies in device memory or textures, and stays there until the slot is
  // free.
  void put(int slot, const DevicePicture& picture, const Window& window);

  // Launches the frame, or gives the slot back unused. A launch that fails gives it back too.
  void submit(int slot);
  void cancel(int slot);

  // Waits for a frame that was submitted, copies its answers, each as long as the plan says, and
  // frees the slot.
  void take(int slot, const std::vector<TensorView<std::uint8_t, 1>>& answers);

  // Waits for what flies and launches nothing any more: the engine's memory may go. What was
  // submitted can still be taken.
  void close();

 private:
  enum class Use : std::uint8_t { free, filling, flying, taking };
  struct Slot {
    FrameDevice::Shared picture{}, place{};  // place: a LetterboxProblem, then its taps
    std::size_t room = 0, used = 0;          // bytes of picture
    bool laid = false, moved = false;  // whether place is written, and changed since it was sent
    std::vector<FrameDevice::Shared> answers;
    int graph = -1;
    Use use = Use::free;
  };

  Slot& of(int slot, Use use, const char* what);
  void make_slot(Slot& slot, void* pixels, const Engine& engine);
  void make_room(Slot& slot, std::size_t bytes);
  void lay(Slot& slot, const DevicePicture& picture, const Window& window);

  FramePlan plan_;
  void* pixels_ = nullptr;
  std::vector<Slot> slots_;
  std::mutex state_;
  bool closed_ = false;
  std::unique_ptr<FrameDevice> device_;
};

}  // namespace detrx::cuda
