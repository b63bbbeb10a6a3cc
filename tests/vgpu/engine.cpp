// What nvcc's host code calls: registration of fat binaries, kernels and variables; launches.
#include "engine.h"

#include <cstring>
#include <unordered_map>

#include "exec.h"
#include "exec_stats.h"

namespace vgpu {
namespace {

// A fat binary: a header, then entries of code for one architecture each.
struct FatHeader {
  u32 magic;
  u16 version, header_bytes;
  u64 bytes;
};
struct FatEntry {
  u16 kind, version;
  u32 header_bytes;
  u64 bytes;
};
constexpr u32 kFatMagic = 0xba55ed50;
constexpr u16 kPtxKind = 1;

struct FatBinary {
  const std::byte* data;
  std::unique_ptr<Module> module;
};

struct Symbol {
  FatBinary* binary;
  std::string name;
};

struct CallConfiguration {
  dim3 grid, block;
  size_t shared;
  void* stream;
};

struct State {
  std::vector<std::unique_ptr<FatBinary>> binaries;
  std::vector<std::unique_ptr<Module>> texts;
  std::unordered_map<const void*, Symbol> kernels, variables;  // by address in the host program
  std::vector<CallConfiguration> configurations;  // of <<< >>> that are being evaluated
};
State& state() {
  static State* s = new State;  // outlives the destructors of other files
  return *s;
}

struct PtxText {
  std::string_view text;
  int arch = 0;
};

// The compute capability in ".target sm_80"; 0 when there is none, as in compressed PTX.
int target_of(std::string_view text) {
  const size_t at = text.find(".target sm_");
  return at == text.npos ? 0 : std::atoi(std::string(text.substr(at + 11, 3)).c_str());
}

// The PTX for the highest architecture that options().arch allows.
PtxText find_ptx(const std::byte* data) {
  FatHeader header;
  std::memcpy(&header, data, sizeof header);
  if (header.magic != kFatMagic) fault("unknown format of the fat binary in an object file");
  const std::byte* at = data + header.header_bytes;
  const std::byte* end = at + header.bytes;
  PtxText best;
  while (at < end) {
    FatEntry entry;
    std::memcpy(&entry, at, sizeof entry);
    const char* text = reinterpret_cast<const char*>(at + entry.header_bytes);
    at += entry.header_bytes + entry.bytes;
    if (entry.kind != kPtxKind) continue;
    const PtxText ptx{{text, strnlen(text, entry.bytes)},
                      target_of({text, strnlen(text, entry.bytes)})};
    if (!ptx.arch) fault("the PTX in an object file is compressed: build with nvcc --no-compress");
    if (options().arch && ptx.arch > options().arch) continue;
    if (ptx.arch > best.arch) best = ptx;
  }
  return best;
}

Module& module_of(FatBinary& binary) {
  if (!binary.module) {
    const PtxText ptx = find_ptx(binary.data);
    if (!ptx.arch) {
      fault(
          "an object file has no PTX that fits: build with -gencode "
          "arch=compute_80,code=compute_80");
    }
    start_counting();
    binary.module = std::make_unique<Module>(ptx.text);
  }
  return *binary.module;
}

Function* kernel_of(const void* host) {
  const auto it = state().kernels.find(host);
  return it == state().kernels.end() ? nullptr
                                     : module_of(*it->second.binary).find(it->second.name);
}

size_t static_shared(const Function& f) {
  size_t bytes = 0;
  for (const Variable& v : f.shared) bytes += v.size;
  return bytes;
}

cudaError_t launch(const Function* f, const void* host, dim3 grid, dim3 block, void** arguments,
                   size_t shared, cudaStream_t stream) {
  if (!f || !f->is_kernel) return record_error(cudaErrorInvalidDeviceFunction);
  if (const cudaError_t e = check_launch(host, grid, block, static_shared(*f), shared)) return e;
  if (f->max_threads && block.x * block.y * block.z > f->max_threads) {
    return record_error(cudaErrorInvalidValue);
  }
  Launch l{f, grid, block, static_cast<u32>(shared), std::vector<std::byte>(f->param_bytes)};
  for (size_t k = 0; k < f->params.size(); ++k) {
    std::memcpy(l.params.data() + f->params[k].offset, arguments[k], f->params[k].size);
  }
  return enqueue(
      stream, [l = std::move(l)] { run_kernel(l); }, demangled(f->name));
}

cudaError_t launch(const void* host, dim3 grid, dim3 block, void** arguments, size_t shared,
                   cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  return launch(kernel_of(host), host, grid, block, arguments, shared, stream);
}

const Module::Global* variable_of(const void* host) {
  const auto it = state().variables.find(host);
  if (it == state().variables.end()) return nullptr;
  const Module& m = module_of(*it->second.binary);
  const auto global = m.globals.find(it->second.name);
  return global == m.globals.end() ? nullptr : &global->second;
}

}  // namespace

Module& load_ptx(std::string_view text) {
  start_counting();
  state().texts.push_back(std::make_unique<Module>(text));
  return *state().texts.back();
}

cudaError_t launch_kernel(Module& module, std::string_view name, dim3 grid, dim3 block,
                          void** arguments, size_t dynamic_shared, cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  const Function* f = module.find(name);
  return launch(f, f, grid, block, arguments, dynamic_shared, stream);
}

std::vector<const Module*> loaded_modules() {
  std::vector<const Module*> modules;
  for (const auto& b : state().binaries) {
    if (b->module) modules.push_back(b->module.get());
  }
  for (const auto& m : state().texts) modules.push_back(m.get());
  return modules;
}

bool kernel_info(const void* function, KernelInfo& info) {
  const Function* f = kernel_of(function);
  if (!f) return false;
  info.name = demangled(f->name);
  info.static_shared = static_shared(*f);
  info.local_bytes = f->local_bytes;
  info.const_bytes = 0;
  info.max_threads = f->max_threads ? static_cast<int>(f->max_threads) : 1024;
  info.arch = static_cast<int>(f->module->target);
  return true;
}

int ptx_arch() {
  int arch = 0;
  for (const auto& b : state().binaries) arch = std::max(arch, find_ptx(b->data).arch);
  return arch;
}

}  // namespace vgpu

using namespace vgpu;

extern "C" {

// The wrapper nvcc emits: magic, version, the fat binary, a file name.
void** __cudaRegisterFatBinary(void* wrapper) {
  struct Wrapper {
    int magic, version;
    const std::byte* data;
    void* name;
  };
  auto binary = std::make_unique<FatBinary>();
  binary->data = static_cast<const Wrapper*>(wrapper)->data;
  state().binaries.push_back(std::move(binary));
  return reinterpret_cast<void**>(state().binaries.back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }

void __cudaRegisterFunction(void** binary, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  state().kernels[host] = {reinterpret_cast<FatBinary*>(binary), name};
}
void __cudaRegisterVar(void** binary, char* host, char*, const char* name, int, size_t, int, int) {
  state().variables[host] = {reinterpret_cast<FatBinary*>(binary), name};
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
  state().configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  const CallConfiguration c = state().configurations.back();
  state().configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  *static_cast<void**>(stream) = c.stream;
  return cudaSuccess;
}

// The host address serves as the handle of a kernel.
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
  return launch(kernel, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t stream) {
  return launch(host, grid, block, arguments, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* c, const void* host, void** arguments) {
  for (unsigned k = 0; k < c->numAttrs; ++k) {
    const cudaLaunchAttributeID id = c->attrs[k].id;
    // Overlap with the end of the launch before changes no result; launches here never overlap.
    if (id != cudaLaunchAttributeProgrammaticStreamSerialization &&
        id != cudaLaunchAttributePriority && id != cudaLaunchAttributeIgnore) {
      fault("cudaLaunchKernelEx: attribute %d is not implemented", static_cast<int>(id));
    }
  }
  return launch(host, c->gridDim, c->blockDim, arguments, c->dynamicSmemBytes, c->stream);
}

cudaError_t cudaGetSymbolAddress(void** address, const void* symbol) {
  const std::lock_guard lock(device_mutex());
  const Module::Global* v = variable_of(symbol);
  if (!v) return record_error(cudaErrorInvalidSymbol);
  *address = v->address;
  return cudaSuccess;
}
cudaError_t cudaGetSymbolSize(size_t* size, const void* symbol) {
  const std::lock_guard lock(device_mutex());
  const Module::Global* v = variable_of(symbol);
  if (!v) return record_error(cudaErrorInvalidSymbol);
  *size = v->size;
  return cudaSuccess;
}

}  // extern "C"
