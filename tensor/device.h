#pragma once
// Where a tensor lives.
#include <ostream>
#include <string>

namespace centroid {

enum class DeviceKind { cpu, cuda };

/// A device: `cpu`, `cuda:0`, `cuda:1`, ...
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

inline std::string to_string(Device device) {
  return device.kind == DeviceKind::cpu ? "cpu" : "cuda:" + std::to_string(device.index);
}
inline std::ostream& operator<<(std::ostream& out, Device device) {
  return out << to_string(device);
}

/// Reads `cpu`, `cuda` or `cuda:N`; throws on anything else.
Device parse_device(const std::string& text);

/// Throws unless this build and this machine can use `device`.
void require_device(Device device);

/// Where `empty`, `zeros`, `from_vector` and their like put a tensor when no device is named: the
/// CPU, until it is set. One for the whole program; set it before threads that make tensors start.
Device default_device();
void set_default_device(Device device);

}  // namespace centroid
