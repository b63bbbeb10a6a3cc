#pragma once
// Kernels as the host sees them: PTX found in the fat binaries that nvcc puts into object files, or
// given as text.
#include <memory>
#include <string_view>
#include <vector>

#include "ptx.h"
#include "vgpu.h"

namespace vgpu {

/// PTX that belongs to no fat binary, as tests write it. It stays loaded.
Module& load_ptx(std::string_view text);

/// Launches a kernel of `module` on a stream, checked as cudaLaunchKernel checks.
cudaError_t launch_kernel(Module& module, std::string_view name, dim3 grid, dim3 block,
                          void** arguments, size_t dynamic_shared = 0,
                          cudaStream_t stream = nullptr);

/// All modules that have been loaded, for reports.
std::vector<const Module*> loaded_modules();

}  // namespace vgpu
