// Memory that grows and is used again.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>

namespace detrx {

// Items of a plain type at an address that suits the widest vectors. Growing forgets them.
template <typename T>
class Buffer {
 public:
  static_assert(std::is_trivially_copyable_v<T>, "items are neither made nor destroyed");

  // Room for count items at least, each zero when the memory is new.
  T* reserve(std::ptrdiff_t count) {
    const auto wanted = static_cast<std::size_t>(count);
    if (wanted > size_) {
      size_ = 0;
      items_.reset(new (kAlign) T[wanted]());
      size_ = wanted;
    }
    return items_.get();
  }

  T* get() const noexcept { return items_.get(); }
  T& operator[](std::ptrdiff_t at) const noexcept { return items_[at]; }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Release {
    void operator()(T* items) const noexcept { ::operator delete[](items, kAlign); }
  };
  std::unique_ptr<T[], Release> items_;
  std::size_t size_ = 0;
};

// The calling thread's own T, made when first asked for. It stands behind a pointer, because
// compilers carry the address of a thread_local object into loops and ask for it there anew.
template <typename T>
T& of_this_thread() {
  static thread_local const std::unique_ptr<T> own = std::make_unique<T>();
  return *own;
}

}  // namespace detrx
