// The API functions that copy and fill memory.
//
// When the host side of a copy is read or written is what programs get wrong: pinned memory is used
// when the stream reaches the copy; a pageable source is read before the call returns, and a copy
// to pageable memory ends before it does.
#include <cstring>

#include "streams.h"

using namespace vgpu;

namespace {

struct Copy {
  const char* name;
  Region to, from;
  cudaMemcpyKind kind;
  cudaStream_t stream;
  bool blocking;  // the host waits for the end

  bool to_device() const {
    return kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  }
  bool from_device() const {
    return kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  }
};

Region region_of(const void* p, size_t width, size_t pitch, size_t height) {
  return {static_cast<char*>(const_cast<void*>(p)), width, pitch, height};
}

const char* direction(cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost: return "host to host";
    case cudaMemcpyHostToDevice: return "host to device";
    case cudaMemcpyDeviceToHost: return "device to host";
    default: return "device to device";
  }
}

std::string describe(const Copy& c) {
  std::string text = std::string(c.name) + ", " + std::to_string(c.to.width);
  if (c.to.height != 1) text += " x " + std::to_string(c.to.height);
  return text + " bytes " + direction(c.kind);
}

// One side as the call sees it: the right kind of memory, and all of it.
cudaError_t check_side(const Copy& c, const Region& side, bool device, const char* side_name) {
  const std::string what = describe(c);
  if (in_device_arena(side.data) != device) {
    return misuse(cudaErrorInvalidValue, "%s: the %s %p is %s memory", what.c_str(), side_name,
                  static_cast<void*>(side.data), device ? "host" : "device");
  }
  if (device) {
    const std::string problem = range_problem(side.data, side.extent());
    if (problem.empty()) return cudaSuccess;
    return misuse(cudaErrorInvalidValue, "%s: the %s %s", what.c_str(), side_name, problem.c_str());
  }
  if (host_memory(side) == HostMemory::straddling) {
    return misuse(cudaErrorInvalidValue, "%s: the %s [%p, +%zu) is partly outside of pinned memory",
                  what.c_str(), side_name, static_cast<void*>(side.data), side.extent());
  }
  return cudaSuccess;
}

void copy_validity(const Region& to, const Region& from) {
  for (size_t row = 0; row < to.height && to.width; ++row) {
    const char *target = to.data + row * to.pitch, *source = from.data + row * from.pitch;
    const Allocation &a = *lookup(target), &b = *lookup(source);
    if (!a.valid) continue;
    std::memmove(a.valid + (reinterpret_cast<uintptr_t>(target) - a.begin),
                 b.valid + (reinterpret_cast<uintptr_t>(source) - b.begin), to.width);
  }
}

void check_live(const std::string& what, const Region& region) {
  const std::string problem = range_problem(region.data, region.extent());
  if (!problem.empty()) fault("%s: %s", what.c_str(), problem.c_str());
}

// Copies between devices may carry bytes that nothing has written yet; they stay such.
void run_copy(const Copy& c, const std::string& what) {
  device_access_begin();
  if (c.kind == cudaMemcpyDeviceToDevice) {
    check_live(what, c.to), check_live(what, c.from);
    if (options().race) {
      for (size_t row = 0; row < c.to.height; ++row) {
        race_check_range(c.from.data + row * c.from.pitch, c.from.width, false);
        race_check_range(c.to.data + row * c.to.pitch, c.to.width, true);
      }
    }
    copy_validity(c.to, c.from);
  } else if (c.to_device()) {
    use_device_memory(what.c_str(), c.to, true);
  } else if (c.from_device()) {
    use_device_memory(what.c_str(), c.from, false);
  }
  for (size_t row = 0; row < c.to.height; ++row) {
    std::memmove(c.to.data + row * c.to.pitch, c.from.data + row * c.from.pitch, c.to.width);
  }
  device_access_end();
}

// Replaces a pageable source by what it holds now.
void stage(Copy& c, std::shared_ptr<std::vector<char>>& staged) {
  staged = std::make_shared<std::vector<char>>(c.from.width * c.from.height);
  for (size_t row = 0; row < c.from.height; ++row) {
    std::memcpy(staged->data() + row * c.from.width, c.from.data + row * c.from.pitch,
                c.from.width);
  }
  c.from = region_of(staged->data(), c.from.width, c.from.width, c.from.height);
}

cudaError_t check_copy(const Copy& c, const Stream& stream) {
  if (const cudaError_t error = check_side(c, c.to, c.to_device(), "destination")) return error;
  if (const cudaError_t error = check_side(c, c.from, c.from_device(), "source")) return error;
  if (!stream.capture) return cudaSuccess;
  const bool pageable = (!c.to_device() && host_memory(c.to) == HostMemory::pageable) ||
                        (!c.from_device() && host_memory(c.from) == HostMemory::pageable);
  return c.blocking || pageable
             ? forbid_in_capture((describe(c) + " of pageable memory").c_str(), &stream)
             : cudaSuccess;
}

cudaError_t copy(Copy c) {
  return api([&]() -> cudaError_t {
    const auto stream = find_stream(c.stream);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (c.to.width == 0 || c.to.height == 0) return cudaSuccess;
    if (c.kind == cudaMemcpyDefault) {
      const bool to = in_device_arena(c.to.data), from = in_device_arena(c.from.data);
      c.kind = to ? (from ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                  : (from ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
    }
    if (const cudaError_t error = check_copy(c, *stream)) return error;
    bool wait = c.blocking && c.kind != cudaMemcpyDeviceToDevice;
    std::shared_ptr<std::vector<char>> staged;
    const std::string what = describe(c);
    Work work{.what = what};
    if (!c.from_device()) {
      if (host_memory(c.from) == HostMemory::pinned) {
        work.from_host = c.from;
      } else {
        stage(c, staged);
      }
    }
    if (!c.to_device()) {
      const bool pinned = host_memory(c.to) == HostMemory::pinned;
      if (pinned) work.to_host = c.to;
      wait = wait || !pinned;
    }
    work.run = [c, what, staged] { run_copy(c, what); };
    const cudaError_t error = submit(stream, std::move(work));
    if (!error && wait) synchronize({stream, stream->enqueued}, stream->clock);
    return error;
  });
}

cudaError_t fill(const char* name, void* p, int value, size_t width, size_t pitch, size_t height,
                 cudaStream_t handle) {
  return api([&]() -> cudaError_t {
    const auto stream = find_stream(handle);
    if (!stream) return cudaErrorInvalidResourceHandle;
    if (width == 0 || height == 0) return cudaSuccess;
    if (height > 1 && pitch < width) return cudaErrorInvalidPitchValue;
    const Region region = region_of(p, width, pitch, height);
    const std::string what = std::string(name) + ", " + std::to_string(width * height) + " bytes";
    const std::string problem = range_problem(p, region.extent());
    if (!problem.empty()) {
      return misuse(cudaErrorInvalidValue, "%s: %s", what.c_str(), problem.c_str());
    }
    const auto run = [region, value, what] {
      device_access_begin();
      use_device_memory(what.c_str(), region, true);
      for (size_t row = 0; row < region.height; ++row) {
        std::memset(region.data + row * region.pitch, value, region.width);
      }
      device_access_end();
    };
    return submit(stream, {.what = what, .run = run});
  });
}

cudaError_t copy_2d(const char* name, void* to, size_t to_pitch, const void* from,
                    size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind,
                    cudaStream_t stream, bool blocking) {
  if (height > 1 && (to_pitch < width || from_pitch < width)) {
    return record_error(cudaErrorInvalidPitchValue);
  }
  return copy({name, region_of(to, width, to_pitch, height),
               region_of(from, width, from_pitch, height), kind, stream, blocking});
}

}  // namespace

extern "C" {

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return copy_2d("cudaMemcpyAsync", to, bytes, from, bytes, bytes, 1, kind, stream, false);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return copy_2d("cudaMemcpy", to, bytes, from, bytes, bytes, 1, kind, nullptr, true);
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  return copy_2d("cudaMemcpyPeerAsync", to, bytes, from, bytes, bytes, 1, cudaMemcpyDeviceToDevice,
                 stream, false);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  return copy_2d("cudaMemcpy2DAsync", to, to_pitch, from, from_pitch, width, height, kind, stream,
                 false);
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch,
                         size_t width, size_t height, cudaMemcpyKind kind) {
  return copy_2d("cudaMemcpy2D", to, to_pitch, from, from_pitch, width, height, kind, nullptr,
                 true);
}

cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream) {
  return fill("cudaMemsetAsync", p, value, bytes, bytes, 1, stream);
}

cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  return fill("cudaMemset", p, value, bytes, bytes, 1, nullptr);
}

cudaError_t cudaMemset2DAsync(void* p, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
  return fill("cudaMemset2DAsync", p, value, width, pitch, height, stream);
}

// ---- variables of modules -----------------------------------------------------------------------

cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, size_t bytes,
                                    size_t offset, cudaMemcpyKind kind, cudaStream_t stream) {
  void* to = nullptr;
  if (const cudaError_t error = cudaGetSymbolAddress(&to, symbol)) return error;
  return copy_2d("cudaMemcpyToSymbolAsync", static_cast<char*>(to) + offset, bytes, from, bytes,
                 bytes, 1, kind, stream, false);
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset,
                               cudaMemcpyKind kind) {
  void* to = nullptr;
  if (const cudaError_t error = cudaGetSymbolAddress(&to, symbol)) return error;
  return copy_2d("cudaMemcpyToSymbol", static_cast<char*>(to) + offset, bytes, from, bytes, bytes,
                 1, kind, nullptr, true);
}

cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, size_t bytes, size_t offset,
                                      cudaMemcpyKind kind, cudaStream_t stream) {
  void* from = nullptr;
  if (const cudaError_t error = cudaGetSymbolAddress(&from, symbol)) return error;
  return copy_2d("cudaMemcpyFromSymbolAsync", to, bytes, static_cast<char*>(from) + offset, bytes,
                 bytes, 1, kind, stream, false);
}

cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, size_t bytes, size_t offset,
                                 cudaMemcpyKind kind) {
  void* from = nullptr;
  if (const cudaError_t error = cudaGetSymbolAddress(&from, symbol)) return error;
  return copy_2d("cudaMemcpyFromSymbol", to, bytes, static_cast<char*>(from) + offset, bytes, bytes,
                 1, kind, nullptr, true);
}

}  // extern "C"
