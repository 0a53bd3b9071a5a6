// An EGL and a GPU driver of ours, of which dmabuf.cpp sees as much as it asks for. The "memory" of
// a file descriptor is its number. DETRX_FAKE_DMABUF names what fails, or "array" for textures.
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Image {
  int attributes[32];
};

bool told(const char* what) {
  const char* const named = std::getenv("DETRX_FAKE_DMABUF");
  return named != nullptr && std::strcmp(named, what) == 0;
}

void say(const char* what) { std::printf("%s\n", what); }

}  // namespace

extern "C" {

struct Frame {
  void* places[3];
  unsigned width, height, depth, pitch, planes, channels;
  int type, colours, format;
};

void* eglGetDisplay(void*) { return told("display") ? nullptr : reinterpret_cast<void*>(1); }
unsigned eglInitialize(void*, int*, int*) { return 1; }
int eglGetError() { return 0x3003; }

void* create_image(void*, void* context, unsigned target, void*, const int* attributes) {
  if (told("image") || context != nullptr || target != 0x3270) return nullptr;
  auto* const image = new Image{};
  for (int i = 0; attributes[i] != 0x3038; ++i) image->attributes[i] = attributes[i];
  for (int i = 0; image->attributes[i] != 0; i += 2)
    std::printf("%x=%d ", static_cast<unsigned>(image->attributes[i]), image->attributes[i + 1]);
  say("");
  return image;
}
unsigned destroy_image(void*, void* image) {
  delete static_cast<Image*>(image);
  say("image gone");
  return 1;
}
void* eglGetProcAddress(const char* name) {
  if (std::strcmp(name, "eglCreateImageKHR") == 0) return reinterpret_cast<void*>(create_image);
  return reinterpret_cast<void*>(destroy_image);
}

int cuInit(unsigned) { return told("init") ? 100 : 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = reinterpret_cast<void*>(static_cast<long>(device + 7));
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int) { return say("device left"), 0; }
static int depth = 0;
int cuCtxPushCurrent_v2(void*) { return ++depth, 0; }
int cuCtxPopCurrent_v2(void**) { return --depth, 0; }
int cuGraphicsEGLRegisterImage(void** resource, void* image, unsigned) {
  *resource = image;
  return told("register") || depth != 1 ? 999 : 0;
}
int cuGraphicsUnregisterResource(void*) { return say("resource gone"), 0; }
int cuGraphicsResourceGetMappedEglFrame(Frame* frame, void* resource, unsigned, unsigned) {
  const int* const attributes = static_cast<Image*>(resource)->attributes;
  const bool pair = attributes[12] != 0;
  frame->planes = told("planes") ? 0 : pair ? 2 : 1;
  frame->type = told("array") ? 0 : 1;
  frame->pitch = static_cast<unsigned>(attributes[11]);
  frame->places[0] = reinterpret_cast<void*>(static_cast<long>(attributes[7]) * 1000);
  frame->places[1] = reinterpret_cast<void*>(static_cast<long>(attributes[7]) * 1000 + 1);
  return 0;
}
struct Resource {
  int type;
  void* array;
};
int cuTexObjectCreate(unsigned long long* texture, const Resource* resource, const int* settings,
                      const void*) {
  *texture = reinterpret_cast<unsigned long long>(resource->array) + 500;
  return resource->type == 0 && settings[0] == 1 && settings[3] == 0 && settings[4] == 1 ? 0 : 1;
}
int cuTexObjectDestroy(unsigned long long) { return say("texture gone"), 0; }
}
