#include "cpu/convert.h"

#include "core/half.h"

namespace detrx::cpu {

void convert(const AnyView<1>& from, const AnyView<1>& to) {
  require_shape("convert", "to", to, from.shape);
  require_device("convert", "from", from, Device::cpu);
  require_device("convert", "to", to, Device::cpu);
  dispatch_float(from.dtype, [&](auto source) {
    using Source = typename decltype(source)::type;
    dispatch_float(to.dtype, [&](auto target) {
      using Target = typename decltype(target)::type;
      const auto read = from.template items<const Source>();
      const auto write = to.template items<Target>();
      for (std::int64_t i = 0; i < from.shape[0]; ++i) {
        write.data[i * write.stride[0]] =
            from_float<Target>(to_float(read.data[i * read.stride[0]]));
      }
    });
  });
}

}  // namespace detrx::cpu
