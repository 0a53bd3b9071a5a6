// Work shared by a few threads that live as long as the process.
#pragma once

#include <cstdint>
#include <functional>

namespace detrx::cpu {

// Calls work(0) ... work(count - 1), each once, on up to `threads` threads, this one among them,
// and returns when all are done. Rethrows the first exception. While another caller has the
// threads, and in a child after fork, all the work is done on this thread.
void parallel(std::int64_t count, int threads, const std::function<void(std::int64_t)>& work);

}  // namespace detrx::cpu
