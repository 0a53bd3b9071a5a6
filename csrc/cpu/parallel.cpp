#include "cpu/parallel.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace detrx::cpu {
namespace {

class Pool {
 public:
  // False when the threads are busy or belong to the process that this one was forked from.
  bool run(std::int64_t count, int helpers, const std::function<void(std::int64_t)>& work) {
    const std::unique_lock<std::mutex> turn(busy_, std::try_to_lock);
    if (!turn.owns_lock() || process_ != getpid()) return false;
    {
      const std::lock_guard<std::mutex> lock(state_);
      while (static_cast<int>(threads_.size()) < helpers) {
        threads_.emplace_back([this, number = threads_.size()] { serve(number); });
      }
      work_ = &work;
      count_ = count;
      next_ = 0;
      failure_ = nullptr;
      wanted_ = static_cast<std::size_t>(helpers);
      ++round_;
    }
    wake_.notify_all();
    take(work, count);
    std::unique_lock<std::mutex> lock(state_);
    // Who has not come by now is not waited for: small work may be done before others are awake.
    work_ = nullptr;
    done_.wait(lock, [this] { return active_ == 0; });
    if (failure_) std::rethrow_exception(failure_);
    return true;
  }

 private:
  void serve(std::size_t number) {
    std::int64_t seen = 0;
    std::unique_lock<std::mutex> lock(state_);
    for (;;) {
      wake_.wait(lock, [&] { return work_ != nullptr && round_ != seen && number < wanted_; });
      seen = round_;
      const auto* const work = work_;
      const std::int64_t count = count_;
      ++active_;
      lock.unlock();
      take(*work, count);
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  void take(const std::function<void(std::int64_t)>& work, std::int64_t count) noexcept {
    try {
      for (std::int64_t i = next_++; i < count; i = next_++) work(i);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(state_);
      if (!failure_) failure_ = std::current_exception();
      next_ = count;
    }
  }

  const pid_t process_ = getpid();
  std::mutex busy_;
  std::mutex state_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<std::thread> threads_;
  const std::function<void(std::int64_t)>* work_ = nullptr;
  std::int64_t count_ = 0;
  std::atomic<std::int64_t> next_{0};
  std::size_t wanted_ = 0;
  std::size_t active_ = 0;
  std::int64_t round_ = 0;
  std::exception_ptr failure_;
};

// Never destroyed: its threads may outlive every static object.
Pool& pool() {
  static Pool* const only = new Pool;
  return *only;
}

}  // namespace

void parallel(std::int64_t count, int threads, const std::function<void(std::int64_t)>& work) {
  const int helpers = static_cast<int>(std::min<std::int64_t>(threads, count)) - 1;
  if (helpers > 0 && pool().run(count, helpers, work)) return;
  for (std::int64_t i = 0; i < count; ++i) work(i);
}

}  // namespace detrx::cpu
