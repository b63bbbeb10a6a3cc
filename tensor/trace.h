#pragma once
// What runs and how long it takes, on request:
//   CENTROID_DEBUG=1        one line per kernel on stderr: phase, name, shapes, milliseconds
//   CENTROID_PROFILE=FILE   a Chrome trace (chrome://tracing, ui.perfetto.dev) written at exit
//   CENTROID_MEM=1          peak memory on stderr at exit
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace centroid {

/// Whether any kernel needs to be timed.
bool tracing();

/// Time spent in one kernel in one phase.
struct KernelTime {
  std::string phase, name;
  double seconds = 0;
  int64_t calls = 0;
};

/// Adds up the time of every kernel until `stop_kernel_times`, which returns the sums, largest
/// first.
void start_kernel_times();
std::vector<KernelTime> stop_kernel_times();

/// Times its own lifetime under a name.
class TraceScope {
 public:
  TraceScope(const char* name, std::string details);
  ~TraceScope();
  TraceScope(const TraceScope&) = delete;

 private:
  const char* name_;
  std::string details_;
  int64_t begin_ns_;
};

/// Names what the program is doing ("forward", "backward", ...) until destroyed; shown in traces.
class TracePhase {
 public:
  explicit TracePhase(const char* phase);
  ~TracePhase();
  TracePhase(const TracePhase&) = delete;

 private:
  const char* previous_;
};

namespace detail {
template <typename T>
void describe_argument(std::string&, const T&) {}
inline void describe_argument(std::string& text, const Tensor& x) {
  if (!text.empty()) text += ' ';
  text += x.defined() ? to_string(x.dtype()) + to_string(x.shape()) : "-";
}
template <typename... Args>
std::string describe_arguments(const Args&... args) {
  std::string text;
  (describe_argument(text, args), ...);
  return text;
}
}  // namespace detail
}  // namespace centroid
