// Sound files: any bytes give a sound or an Error. The bytes are a file in memory.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <string>

#include "apps/audio/sound.h"
#include "tensor/error.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace centroid;
  const int file = ::memfd_create("sound", MFD_CLOEXEC);
  if (file < 0 || ::write(file, data, size) != static_cast<ssize_t>(size)) __builtin_trap();
  const std::string path = concat("/proc/self/fd/", file);
  try {
    const audio::Sound sound = audio::load_sound(path);
    if (sound.samples.empty() || sound.rate <= 0) __builtin_trap();
    for (const float x : sound.samples) {
      if (!std::isfinite(x)) __builtin_trap();
    }
    if (!(audio::sound_duration(path) > 0)) __builtin_trap();
  } catch (const Error&) {
  }
  ::close(file);
  return 0;
}
