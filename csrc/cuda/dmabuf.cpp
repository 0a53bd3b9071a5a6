#include "cuda/dmabuf.h"

#include <dlfcn.h>

#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"

namespace detrx::cuda {
namespace {

// What EGL's and CUDA's documentation give, by names of ours.
using Handle = void*;  // EGLDisplay, EGLImageKHR, CUcontext, CUgraphicsResource, CUarray
using Texture = unsigned long long;

constexpr int kWidth = 0x3057, kHeight = 0x3056, kNone = 0x3038;
constexpr int kDmabuf = 0x3270, kFourcc = 0x3271;         // EGL_EXT_image_dma_buf_import
constexpr int kPlaneFd[] = {0x3272, 0x3275};              // then offset and pitch
constexpr int kCudaArray = 0, kIntegers = 1, kClamp = 1;  // of a resource and of a texture
constexpr int kMostPlanes = 3;

struct EglFrame {
  union {
    Handle array[kMostPlanes];
    void* pitched[kMostPlanes];
  };
  unsigned width, height, depth, pitch, planes, channels;
  int type;  // 0: arrays, 1: pitched memory
  int colours, format;
};

struct Resource {
  int type;
  union {
    Handle array;
    int reserved[32];
  };
  unsigned flags;
};

struct TextureSettings {
  int address[3], filter;
  unsigned flags, anisotropy;
  int mipmap_filter;
  float mipmap_bias, mipmap_least, mipmap_most, border[4];
  int reserved[12];
};

constexpr int fourcc(const char (&name)[5]) {
  return name[0] | name[1] << 8 | name[2] << 16 | name[3] << 24;
}

int fourcc_of(PixelFormat format) {
  switch (format) {
    case PixelFormat::nv12:
      return fourcc("NV12");
    case PixelFormat::rgba:
      return fourcc("AB24");
    case PixelFormat::bgra:
      return fourcc("AR24");
    case PixelFormat::yuyv:
      return fourcc("YUYV");
    case PixelFormat::grey:
      return fourcc("R8  ");
    default:
      require(false, "[dmabuf] holds nv12, rgba, bgra, yuyv or grey, not three bytes a pixel");
      return 0;
  }
}

Handle open_library(const char* name) {
  Handle const handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw DeviceError(std::string("[dmabuf] ") + name + " does not open: " + dlerror());
  }
  return handle;
}

template <typename Function>
void take(void* found, const char* name, Function*& function) {
  if (found == nullptr) {
    throw DeviceError(std::string("[dmabuf] EGL or the NVIDIA driver lacks ") + name);
  }
  function = reinterpret_cast<Function*>(found);
}

void check(int code, const char* what) {
  if (code != 0) {
    throw DeviceError(std::string("[dmabuf] CUDA does not ") + what + " (CUresult " +
                      std::to_string(code) + ")");
  }
}

}  // namespace

struct DmabufReader::Mapped {
  Handle image = nullptr, resource = nullptr;
  std::vector<Texture> textures;
  DevicePicture picture{};
  Dmabuf buffer;
};

struct DmabufReader::Libraries {
  Handle (*get_display)(Handle);
  unsigned (*initialise)(Handle, int*, int*);
  void* (*address)(const char*);
  int (*error)();
  Handle (*create_image)(Handle, Handle, unsigned, Handle, const int*);
  unsigned (*destroy_image)(Handle, Handle);
  int (*init)(unsigned);
  int (*retain)(Handle*, int);
  int (*release)(int);
  int (*push)(Handle);
  int (*pop)(Handle*);
  int (*register_image)(Handle*, Handle, unsigned);
  int (*unregister)(Handle);
  int (*mapped_frame)(EglFrame*, Handle, unsigned, unsigned);
  int (*create_texture)(Texture*, const Resource*, const TextureSettings*, const void*);
  int (*destroy_texture)(Texture);

  int device = 0;
  Handle display = nullptr, context = nullptr;
  std::map<int, Mapped> mapped;  // by file descriptor

  explicit Libraries(int index) : device(index) {
    Handle const egl = open_library("libEGL.so.1"), cuda = open_library("libcuda.so.1");
    const auto of = [](Handle library, const char* name, auto& function) {
      take(dlsym(library, name), name, function);
    };
    of(egl, "eglGetDisplay", get_display);
    of(egl, "eglInitialize", initialise);
    of(egl, "eglGetProcAddress", address);
    of(egl, "eglGetError", error);
    take(address("eglCreateImageKHR"), "eglCreateImageKHR", create_image);
    take(address("eglDestroyImageKHR"), "eglDestroyImageKHR", destroy_image);
    of(cuda, "cuInit", init);
    of(cuda, "cuDevicePrimaryCtxRetain", retain);
    of(cuda, "cuDevicePrimaryCtxRelease_v2", release);
    of(cuda, "cuCtxPushCurrent_v2", push);
    of(cuda, "cuCtxPopCurrent_v2", pop);
    of(cuda, "cuGraphicsEGLRegisterImage", register_image);
    of(cuda, "cuGraphicsUnregisterResource", unregister);
    of(cuda, "cuGraphicsResourceGetMappedEglFrame", mapped_frame);
    of(cuda, "cuTexObjectCreate", create_texture);
    of(cuda, "cuTexObjectDestroy", destroy_texture);
    display = get_display(nullptr);
    if (display == nullptr || initialise(display, nullptr, nullptr) == 0) {
      throw DeviceError("[dmabuf] EGL has no display; on a Jetson without a screen, unset DISPLAY");
    }
    check(init(0), "start");
    check(retain(&context, device), "take the device");
  }

  ~Libraries() {
    while (!mapped.empty()) drop(mapped.begin());
    release(device);
  }

  void drop(std::map<int, Mapped>::iterator place) noexcept {
    Mapped& old = place->second;
    const bool there = push(context) == 0;
    for (const Texture texture : old.textures) destroy_texture(texture);
    if (old.resource != nullptr) unregister(old.resource);
    if (there) {
      Handle left = nullptr;
      pop(&left);
    }
    if (old.image != nullptr) destroy_image(display, old.image);
    mapped.erase(place);
  }

  void make_image(Mapped& made) {
    const Dmabuf& buffer = made.buffer;
    std::vector<int> attributes{kWidth,  static_cast<int>(buffer.width),
                                kHeight, static_cast<int>(buffer.height),
                                kFourcc, fourcc_of(buffer.format)};
    const std::size_t planes = buffer.format == PixelFormat::nv12 ? 2 : 1;
    for (std::size_t plane = 0; plane < planes; ++plane) {
      const int first = kPlaneFd[plane];
      attributes.insert(attributes.end(),
                        {first, buffer.fd, first + 1, static_cast<int>(buffer.offset[plane]),
                         first + 2, static_cast<int>(buffer.pitch[plane])});
    }
    attributes.push_back(kNone);
    made.image = create_image(display, nullptr, kDmabuf, nullptr, attributes.data());
    if (made.image == nullptr) {
      std::ostringstream message;
      message << "[dmabuf] EGL takes no image of file descriptor " << buffer.fd << " (error 0x"
              << std::hex << error() << ")";
      throw DeviceError(message.str());
    }
  }

  Texture make_texture(Handle array) {
    Resource resource{};
    resource.type = kCudaArray;
    resource.array = array;
    TextureSettings settings{};
    for (int& axis : settings.address) axis = kClamp;
    settings.flags = kIntegers;
    Texture texture = 0;
    check(create_texture(&texture, &resource, &settings, nullptr), "make a texture");
    return texture;
  }

  void read_frame(Mapped& made) {
    check(register_image(&made.resource, made.image, 1), "map the image");  // 1: only read
    EglFrame frame{};
    check(mapped_frame(&frame, made.resource, 0, 0), "say where the image lies");
    const bool pair = made.buffer.format == PixelFormat::nv12;
    if (frame.planes < (pair ? 2U : 1U) || frame.planes > kMostPlanes) {
      throw DeviceError("[dmabuf] the driver has " + std::to_string(frame.planes) + " planes");
    }
    DevicePicture& picture = made.picture;
    if (frame.type == 1) {
      picture.plane = static_cast<const std::uint8_t*>(frame.pitched[0]);
      picture.chroma = pair ? static_cast<const std::uint8_t*>(frame.pitched[1]) : nullptr;
      picture.pitch = frame.pitch;
      picture.chroma_pitch = pair ? frame.pitch : 0;
    } else if (made.buffer.format == PixelFormat::yuyv) {
      throw DeviceError("[dmabuf] yuyv is read from pitched memory, and the driver has an array");
    } else {
      for (unsigned plane = 0; plane < (pair ? 2U : 1U); ++plane) {
        made.textures.push_back(make_texture(frame.array[plane]));
      }
      picture.texture = made.textures.front();
      picture.chroma_texture = made.textures.back();
    }
    picture.height = made.buffer.height;
    picture.width = made.buffer.width;
    picture.format = made.buffer.format;
    picture.colours = made.buffer.colours;
  }
};

DmabufReader::DmabufReader(int device) : libraries_(std::make_unique<Libraries>(device)) {}

DmabufReader::~DmabufReader() = default;

DevicePicture DmabufReader::map(const Dmabuf& buffer) {
  constexpr std::int64_t kMost = 1 << 16;
  fourcc_of(buffer.format);
  require(buffer.fd >= 0 && buffer.height > 0 && buffer.width > 0 && buffer.height < kMost &&
              buffer.width < kMost,
          "[dmabuf] no picture of ", buffer.height, " x ", buffer.width,
          " pixels lies in file descriptor ", buffer.fd);
  Libraries& all = *libraries_;
  const auto known = all.mapped.find(buffer.fd);
  if (known != all.mapped.end()) {
    const Dmabuf& before = known->second.buffer;
    const bool same = before.format == buffer.format && before.colours == buffer.colours &&
                      before.height == buffer.height && before.width == buffer.width &&
                      before.offset == buffer.offset && before.pitch == buffer.pitch;
    if (same) return known->second.picture;
    all.drop(known);
  }
  const auto place = all.mapped.emplace(buffer.fd, Mapped{}).first;
  place->second.buffer = buffer;
  try {
    all.make_image(place->second);
    check(all.push(all.context), "enter the device");
    struct Leave {
      Libraries& libraries;
      ~Leave() {
        Handle left = nullptr;
        libraries.pop(&left);
      }
    } const leave{all};
    all.read_frame(place->second);
  } catch (...) {
    all.drop(place);
    throw;
  }
  return place->second.picture;
}

void DmabufReader::forget(int fd) noexcept {
  const auto known = libraries_->mapped.find(fd);
  if (known != libraries_->mapped.end()) libraries_->drop(known);
}

}  // namespace detrx::cuda
