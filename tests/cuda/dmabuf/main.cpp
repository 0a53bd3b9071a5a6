// Maps buffers and says what came of it, one line each.
#include <cstdio>
#include <stdexcept>

#include "cuda/dmabuf.h"

using namespace detrx;

static void map(cuda::DmabufReader& reader, int fd, PixelFormat format, std::int64_t width) {
  try {
    const cuda::DevicePicture found =
        reader.map({fd, format, Colours::bt709, 480, width, {0, width * 480}, {width, width}});
    std::printf("plane %ld chroma %ld pitch %ld %ld textures %llu %llu of %ld x %ld\n",
                reinterpret_cast<long>(found.plane), reinterpret_cast<long>(found.chroma),
                static_cast<long>(found.pitch), static_cast<long>(found.chroma_pitch),
                found.texture, found.chroma_texture, static_cast<long>(found.height),
                static_cast<long>(found.width));
  } catch (const std::exception& error) {
    std::printf("refused: %s\n", error.what());
  }
}

int main() {
  try {
    cuda::DmabufReader reader(0);
    map(reader, 5, PixelFormat::nv12, 640);
    map(reader, 5, PixelFormat::nv12, 640);  // as it is mapped
    map(reader, 5, PixelFormat::rgba, 320);  // another picture in the same descriptor
    map(reader, 6, PixelFormat::yuyv, 320);
    map(reader, 7, PixelFormat::bgr, 320);
    map(reader, -1, PixelFormat::nv12, 320);
    reader.forget(5);
    reader.forget(5);
    std::puts("end");
  } catch (const std::exception& error) {
    std::printf("no reader: %s\n", error.what());
  }
}
