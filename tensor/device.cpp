#include "tensor/device.h"

#include <charconv>

#include "tensor/backend.h"
#include "tensor/error.h"

namespace centroid {
namespace {

Device g_default;
MathMode g_math_mode = MathMode::f32;

}  // namespace

Device parse_device(const std::string& text) {
  if (text == "cpu") return {};
  Device device{DeviceKind::cuda, 0};
  if (text == "cuda") return device;
  if (text.starts_with("cuda:")) {
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + 5, end, device.index);
    if (error == std::errc() && stop == end && device.index >= 0) return device;
  }
  throw Error(concat("device: expected cpu, cuda or cuda:N, got '", text, "'"));
}

void require_device(Device device) {
  if (device.kind == DeviceKind::cpu) return;
  CENTROID_CHECK(cuda::compiled(), "device ", device, ": this build has no CUDA (make CUDA=1)");
  std::string reason;
  const int count = cuda::device_count(&reason);
  CENTROID_CHECK(count > 0, "device ", device, ": expected a CUDA device, found none: ", reason);
  CENTROID_CHECK(device.index < count, "device ", device, ": expected cuda:0 to cuda:", count - 1);
}

Device default_device() { return g_default; }

void set_default_device(Device device) {
  require_device(device);
  g_default = device;
}

MathMode math_mode() { return g_math_mode; }
void set_math_mode(MathMode mode) { g_math_mode = mode; }

}  // namespace centroid
