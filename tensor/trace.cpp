#include "tensor/trace.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <utility>

namespace centroid {
namespace {

thread_local const char* t_phase = "forward";

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Event {
  const char* name;
  const char* phase;
  std::string details;
  int64_t begin_ns, end_ns;
};

// Reads the environment once and writes what was asked for when the program ends.
class Tracer {
 public:
  Tracer() {
    const auto set = [](const char* name) {
      const char* value = std::getenv(name);
      return value && *value && std::string(value) != "0";
    };
    debug = set("CENTROID_DEBUG");
    memory = set("CENTROID_MEM");
    if (const char* path = std::getenv("CENTROID_PROFILE")) profile_path = path;
  }

  ~Tracer() {
    if (memory) {
      const MemoryStats s = allocator({}).stats();
      std::fprintf(stderr, "memory: peak %.1f MiB, cached %.1f MiB, %llu requests, %llu reused\n",
                   s.peak / 1048576.0, s.cached / 1048576.0,
                   static_cast<unsigned long long>(s.allocations),
                   static_cast<unsigned long long>(s.reused));
    }
    if (!profile_path.empty()) write_profile();
  }

  void write_profile() const {
    std::FILE* file = std::fopen(profile_path.c_str(), "w");
    if (!file) {
      std::fprintf(stderr, "CENTROID_PROFILE: cannot write %s\n", profile_path.c_str());
      return;
    }
    std::fputs("{\"traceEvents\":[", file);
    for (size_t i = 0; i < events.size(); ++i) {
      const Event& e = events[i];
      std::fprintf(file,
                   "%s\n{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":1,"
                   "\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"shapes\":\"%s\"}}",
                   i ? "," : "", e.name, e.phase, e.begin_ns / 1e3, (e.end_ns - e.begin_ns) / 1e3,
                   e.details.c_str());
    }
    std::fputs("\n]}\n", file);
    std::fclose(file);
  }

  bool debug = false, memory = false;
  std::atomic<bool> summing = false;
  std::map<std::pair<std::string, std::string>, KernelTime> sums;  // by (phase, name)
  std::string profile_path;
  std::mutex mutex;
  std::vector<Event> events;
};

Tracer& tracer() {
  static Tracer instance;
  return instance;
}

}  // namespace

bool tracing() {
  static const bool always = tracer().debug || !tracer().profile_path.empty();
  return always || tracer().summing.load(std::memory_order_relaxed);
}

void start_kernel_times() {
  std::lock_guard lock(tracer().mutex);
  tracer().sums.clear();
  tracer().summing = true;
}

std::vector<KernelTime> stop_kernel_times() {
  std::lock_guard lock(tracer().mutex);
  tracer().summing = false;
  std::vector<KernelTime> times;
  for (const auto& [key, time] : tracer().sums) times.push_back(time);
  std::stable_sort(times.begin(), times.end(),
                   [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return times;
}

TraceScope::TraceScope(const char* name, std::string details)
    : name_(name), details_(std::move(details)), begin_ns_(now_ns()) {}

TraceScope::~TraceScope() {
  const int64_t end_ns = now_ns();
  Tracer& t = tracer();
  std::lock_guard lock(t.mutex);
  if (t.summing) {
    KernelTime& sum = t.sums[{t_phase, name_}];
    sum.phase = t_phase;
    sum.name = name_;
    sum.seconds += (end_ns - begin_ns_) / 1e9;
    ++sum.calls;
  }
  if (t.debug) {
    std::fprintf(stderr, "%-8s %-24s %9.3f ms  %s\n", t_phase, name_, (end_ns - begin_ns_) / 1e6,
                 details_.c_str());
  }
  if (!t.profile_path.empty()) {
    t.events.push_back({name_, t_phase, std::move(details_), begin_ns_, end_ns});
  }
}

TracePhase::TracePhase(const char* phase) : previous_(t_phase) { t_phase = phase; }
TracePhase::~TracePhase() { t_phase = previous_; }

}  // namespace centroid
