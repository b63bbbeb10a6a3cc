#include "tensor/device.h"

#include <charconv>

#include "tensor/error.h"

namespace centroid {

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
  CENTROID_CHECK(device.kind == DeviceKind::cpu, "device ", device,
                 ": this build has no CUDA (make CUDA=1)");
}

}  // namespace centroid
