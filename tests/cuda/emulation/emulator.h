// Runs the CUDA kernels of this package on a CPU, so that machines without a GPU test them too.
//
// A block's threads are fibers of one thread that hand over at barriers and exchanges, in an order
// drawn by chance: a kernel that leaves out a barrier answers differently from run to run. Blocks
// run one after another. What is not modelled: memory that other threads see late, half-done
// atomics, and any speed.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

namespace emulator {

struct Place {
  unsigned x = 0, y = 0, z = 0;
};

constexpr unsigned kWarp = 32;
constexpr std::size_t kStack = 128 * 1024;

// Where some of the block's threads wait for each other.
struct Barrier {
  unsigned expected = 0, arrived = 0, round = 0;
};

struct Fiber {
  ucontext_t context;  // as it starts
  jmp_buf resumed;     // as it goes on: jumps, unlike contexts, ask nothing of the kernel
  const Barrier* waits = nullptr;
  unsigned round = 0;  // of that barrier when it came
  std::unique_ptr<char[]> stack;
  Place place;
  bool started = false, done = false;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Barrier> warps;
  std::vector<std::uint64_t> exchanged;  // what each thread shows its warp
  Barrier all;
  jmp_buf scheduler;
  std::size_t running = 0;
  std::function<void()> body;
  std::vector<unsigned char> shared;
  std::mt19937 chance;
};

inline Block* block = nullptr;
inline Place block_index, block_size, grid_size;
inline unsigned seed = 0;

inline Place& thread_index() { return block->fibers[block->running].place; }

inline void hand_over() {
  if (_setjmp(block->fibers[block->running].resumed) == 0) _longjmp(block->scheduler, 1);
}

inline void release(Barrier& barrier) {
  barrier.arrived = 0;
  ++barrier.round;
}

inline void wait(Barrier& barrier) {
  Fiber& mine = block->fibers[block->running];
  mine.waits = &barrier;
  mine.round = barrier.round;
  if (++barrier.arrived == barrier.expected) release(barrier);
  hand_over();
}

inline bool ready(const Fiber& fiber) {
  return !fiber.done && (fiber.waits == nullptr || fiber.waits->round != fiber.round);
}

// A thread that returns is waited for no longer.
inline void leave(Barrier& barrier) {
  if (--barrier.expected == barrier.arrived && barrier.arrived > 0) release(barrier);
}

inline void run_fiber() {
  block->body();
  block->fibers[block->running].done = true;
  leave(block->all);
  leave(block->warps[block->running / kWarp]);
  hand_over();
}

inline void go_on(Fiber& fiber) {
  if (_setjmp(block->scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.resumed, 1);
  fiber.started = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, run_fiber, 0);
  setcontext(&fiber.context);
}

inline void run_block(Block& b) {
  const auto threads = b.fibers.size();
  b.all = {static_cast<unsigned>(threads), 0, 0};
  b.warps.assign((threads + kWarp - 1) / kWarp, Barrier{kWarp, 0, 0});
  if (threads % kWarp != 0) throw std::runtime_error("a block must be of whole warps");
  std::vector<std::size_t> order(threads);
  for (std::size_t i = 0; i < threads; ++i) {
    order[i] = i;
    b.fibers[i].place = {static_cast<unsigned>(i), 0, 0};
    b.fibers[i].started = b.fibers[i].done = false;
    b.fibers[i].waits = nullptr;
  }
  // Memory that a kernel must not take for zero.
  std::fill(b.shared.begin(), b.shared.end(), static_cast<unsigned char>(0xcd));
  for (std::size_t left = threads; left > 0;) {
    bool moved = false;
    std::shuffle(order.begin(), order.end(), b.chance);
    for (const std::size_t i : order) {
      if (!ready(b.fibers[i])) continue;
      moved = true;
      b.running = i;
      go_on(b.fibers[i]);
      left -= b.fibers[i].done ? 1 : 0;
    }
    if (left > 0 && !moved) throw std::runtime_error("threads wait for others that do not come");
  }
}

inline void run_grid(Place grid, unsigned threads, std::size_t shared,
                     const std::function<void()>& body) {
  Block b;
  b.fibers.resize(threads);
  for (Fiber& fiber : b.fibers) fiber.stack = std::make_unique<char[]>(kStack);
  b.exchanged.resize(threads);
  b.shared.resize(shared + 1);
  b.body = body;
  b.chance.seed(seed);
  block = &b;
  grid_size = grid;
  block_size = {threads, 1, 1};
  for (block_index.z = 0; block_index.z < grid.z; ++block_index.z)
    for (block_index.y = 0; block_index.y < grid.y; ++block_index.y)
      for (block_index.x = 0; block_index.x < grid.x; ++block_index.x) run_block(b);
  block = nullptr;
}

// Where a capture records what is enqueued; null: it is done at once.
inline std::vector<std::function<void()>>* recorder = nullptr;

inline void enqueue(const std::function<void()>& work) {
  recorder != nullptr ? recorder->push_back(work) : work();
}

// Of the frame device: what it was asked for so far, and how many launches go well (-1: all).
inline int allocations = 0;
inline int launches_left = -1;

// What the lane `from` of this warp shows; all lanes call.
template <typename T>
T exchange(T value, unsigned from) {
  const std::size_t me = block->running, first = me / kWarp * kWarp;
  std::memcpy(&block->exchanged[me], &value, sizeof value);
  wait(block->warps[me / kWarp]);
  T answer;
  std::memcpy(&answer, &block->exchanged[first + from], sizeof answer);
  wait(block->warps[me / kWarp]);
  return answer;
}

template <typename To, typename From>
To bits_as(From value) {
  To answer;
  static_assert(sizeof answer == sizeof value);
  std::memcpy(&answer, &value, sizeof value);
  return answer;
}

}  // namespace emulator

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)

inline void __syncthreads() { emulator::wait(emulator::block->all); }
inline void __syncwarp() {
  emulator::wait(emulator::block->warps[emulator::block->running / emulator::kWarp]);
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, int step) {
  const auto lane = static_cast<unsigned>(emulator::block->running) % emulator::kWarp;
  return emulator::exchange(value, lane ^ static_cast<unsigned>(step));
}

template <typename T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to = before + value;
  return before;
}

template <typename T>
T atomicMin(T* to, T value) {
  const T before = *to;
  *to = value < before ? value : before;
  return before;
}

inline int __float_as_int(float value) { return emulator::bits_as<int>(value); }
inline float __int_as_float(int value) { return emulator::bits_as<float>(value); }
inline long long __double_as_longlong(double value) { return emulator::bits_as<long long>(value); }
inline double __longlong_as_double(long long value) { return emulator::bits_as<double>(value); }

struct uchar2 {
  unsigned char x, y;
};
struct uchar4 {
  unsigned char x, y, z, w;
};

namespace emulator {
// What a texture object points to here.
struct Texture {
  const unsigned char* data;
  std::int64_t pitch, height, width;
};
}  // namespace emulator

// Reads the texel that a place lies in, the nearest one beyond the edges.
template <typename T>
T tex2D(unsigned long long texture, float x, float y) {
  const auto& from = *reinterpret_cast<const emulator::Texture*>(texture);
  const auto row =
      std::clamp(static_cast<std::int64_t>(std::floor(y)), std::int64_t{0}, from.height - 1);
  const auto column =
      std::clamp(static_cast<std::int64_t>(std::floor(x)), std::int64_t{0}, from.width - 1);
  T texel;
  std::memcpy(&texel, from.data + row * from.pitch + column * static_cast<std::int64_t>(sizeof(T)),
              sizeof(T));
  return texel;
}
