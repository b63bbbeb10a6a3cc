// Streams. Nothing that is enqueued runs before something waits for it: a host that forgets to wait
// sees memory as it was. While something waits, with a seed, the work of other streams is mixed in.
//
// All that orders work is known when it is enqueued, so each task carries a vector clock: for each
// stream, how much of it has ended before the task may start. The race detector asks it.
#include "streams.h"

#include <algorithm>
#include <chrono>
#include <unordered_map>

namespace vgpu {
namespace {

struct State {
  std::vector<std::shared_ptr<Stream>> streams;  // those with a handle, or with work left
  std::unordered_map<cudaStream_t, std::shared_ptr<Stream>> handles;
  std::vector<std::shared_ptr<Stream>> legacy, per_thread;  // of each device
  uint32_t stream_count = 0;
  Clock host;  // what the host has seen to have ended
  std::vector<std::pair<uint32_t, uint64_t>> origins{{0, 0}};  // of task i: stream, position
  std::vector<bool> used;                                      // streams that had work
  bool overlap = false;
};

// Never destroyed, as device memory is not.
State& state() {
  static auto* instance = new State;
  return *instance;
}

struct Running {
  const Task* task = nullptr;
  const Stream* stream = nullptr;
  uint32_t number = 0;
};
Running running;

std::shared_ptr<Stream> add_stream(int device, Stream::Kind kind) {
  auto stream = std::make_shared<Stream>();
  stream->number = state().stream_count++;
  stream->device = device, stream->kind = kind;
  state().streams.push_back(stream);
  return stream;
}

std::shared_ptr<Stream> default_stream(std::vector<std::shared_ptr<Stream>>& of_device,
                                       Stream::Kind kind) {
  const auto device = static_cast<size_t>(current_device());
  if (of_device.size() <= device) of_device.resize(device + 1);
  if (!of_device[device]) of_device[device] = add_stream(current_device(), kind);
  return of_device[device];
}

// ---- running ------------------------------------------------------------------------------------

// A fault has left the device unusable: nothing that waits there runs any more.
void abandon_work(int device) {
  close_device_access();
  set_fault_context(nullptr);
  set_device_error(device, cudaErrorIllegalAddress);
  for (const auto& stream : state().streams) {
    if (stream->device != device) continue;
    stream->queue.clear();
    stream->done = stream->enqueued;
  }
}

void run_front(Stream& stream) {
  const Task task = std::move(stream.queue.front());
  stream.queue.pop_front();
  const uint64_t position = stream.done + 1;
  state().origins.emplace_back(stream.number, position);
  running = {&task, &stream, static_cast<uint32_t>(state().origins.size() - 1)};
  try {
    if (task.from_host) task.from_host->arrive(task.work.what);
    if (task.to_host) task.to_host->arrive(task.work.what);
    if (task.work.run) task.work.run();
    stream.done = position;
  } catch (const DeviceFault&) {
    abandon_work(stream.device);
  }
  running = {};
}

// Runs one task that brings the front of `stream` closer. Waits refer to work that was enqueued
// before them, so following them ends.
void run_towards(Stream& stream) {
  Stream* next = &stream;
  const auto blocked_by = [](const Stream& s) -> Stream* {
    for (const Mark& mark : s.queue.front().waits) {
      if (!mark.reached()) return mark.stream.get();
    }
    return nullptr;
  };
  while (Stream* other = blocked_by(*next)) next = other;
  run_front(*next);
}

// Lets some stream get ahead; false when none has work.
bool overtake() {
  std::vector<Stream*> ready;
  for (const auto& stream : state().streams) {
    if (!stream->queue.empty()) ready.push_back(stream.get());
  }
  if (ready.empty()) return false;
  run_towards(*ready[rng().below(static_cast<uint32_t>(ready.size()))]);
  return true;
}

void run_until(const Mark& mark) {
  while (!mark.reached()) {
    if (options().seed && rng().below(2) && overtake()) continue;
    run_towards(*mark.stream);
  }
}

// ---- order --------------------------------------------------------------------------------------

void wait_for_stream(Stream& stream, const std::shared_ptr<Stream>& other) {
  const Mark mark{other, other->enqueued};
  if (!mark.reached()) stream.waits.push_back(mark);
  stream.clock.join(other->clock);
}

// The legacy default stream waits for all that is in the blocking streams of its device, and they
// for it.
void apply_legacy_rule(const std::shared_ptr<Stream>& stream) {
  if (stream->kind == Stream::Kind::non_blocking) return;
  for (const auto& other : state().streams) {
    if (other == stream || other->device != stream->device) continue;
    if (stream->kind == Stream::Kind::legacy ? other->kind == Stream::Kind::blocking
                                             : other->kind == Stream::Kind::legacy) {
      wait_for_stream(*stream, other);
    }
  }
}

void count_use(const Stream& stream) {
  auto& used = state().used;
  if (used.size() <= stream.number) used.resize(stream.number + 1);
  used[stream.number] = true;
  if (!state().overlap) state().overlap = std::count(used.begin(), used.end(), true) > 1;
}

double now_milliseconds() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

void push(const std::shared_ptr<Stream>& stream, Work work) {
  if (stream->kind != Stream::Kind::non_blocking) apply_legacy_rule(stream);
  count_use(*stream);
  Task task;
  task.waits = std::move(stream->waits);
  stream->waits.clear();
  stream->clock.join(state().host);
  stream->clock.set(stream->number, ++stream->enqueued);
  task.clock = stream->clock;
  if (work.from_host) {
    task.from_host = std::make_unique<Transfer>(*work.from_host, Transfer::Direction::from_host);
  }
  if (work.to_host) {
    task.to_host = std::make_unique<Transfer>(*work.to_host, Transfer::Direction::to_host);
  }
  task.work = std::move(work);
  stream->queue.push_back(std::move(task));
  if (!options().defer) run_until({stream, stream->enqueued});
}

// Streams without a handle are kept until they have run empty.
void forget_ended_streams() {
  std::erase_if(state().streams, [](const std::shared_ptr<Stream>& stream) {
    return stream.use_count() == 1 && stream->queue.empty();
  });
}

}  // namespace

// ---- handles ------------------------------------------------------------------------------------

std::shared_ptr<Stream> find_stream(cudaStream_t handle) {
  if (!handle || handle == cudaStreamLegacy) {
    return default_stream(state().legacy, Stream::Kind::legacy);
  }
  if (handle == cudaStreamPerThread) {
    return default_stream(state().per_thread, Stream::Kind::blocking);
  }
  const auto it = state().handles.find(handle);
  return it == state().handles.end() ? nullptr : it->second;
}

cudaStream_t make_stream(bool blocking) {
  forget_ended_streams();
  auto stream =
      add_stream(current_device(), blocking ? Stream::Kind::blocking : Stream::Kind::non_blocking);
  const auto handle = reinterpret_cast<cudaStream_t>(stream.get());
  state().handles[handle] = std::move(stream);
  return handle;
}

bool remove_stream(cudaStream_t handle) { return state().handles.erase(handle) == 1; }

// ---- work ---------------------------------------------------------------------------------------

cudaError_t submit(const std::shared_ptr<Stream>& stream, Work work) {
  if (stream->capture) {
    if (stream->capture->invalid) return cudaErrorStreamCaptureInvalidated;
    if (stream != stream->capture->origin) stream->unjoined = true;
    stream->capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  if (stream->kind == Stream::Kind::legacy) {
    for (const auto& other : state().streams) {
      if (!other->capture || other->device != stream->device) continue;
      if (other->kind != Stream::Kind::blocking) continue;
      note("%s on the legacy default stream while a blocking stream is being captured",
           work.what.c_str());
      other->capture->invalid = true;
      return cudaErrorStreamCaptureImplicit;
    }
  }
  push(stream, std::move(work));
  return device_error(stream->device);
}

cudaError_t enqueue(cudaStream_t handle, std::function<void()> task, std::string name) {
  return api([&]() -> cudaError_t {
    const auto stream = find_stream(handle);
    if (!stream) {
      return misuse(cudaErrorInvalidResourceHandle, "launch of %s: no such stream", name.c_str());
    }
    if (stream->device != current_device()) {
      return misuse(cudaErrorInvalidResourceHandle,
                    "launch of %s: the stream is of device %d, the current device is %d",
                    name.c_str(), stream->device, current_device());
    }
    return submit(stream, {.what = std::move(name), .run = std::move(task), .kernel = true});
  });
}

std::shared_ptr<Record> record_position(const std::shared_ptr<Stream>& stream, bool timed) {
  auto record = std::make_shared<Record>();
  if (stream->capture) {
    record->capture = stream->capture;
    record->mark.stream = stream;
    return record;
  }
  if (timed) {
    push(stream, {"cudaEventRecord",
                  [record] { record->milliseconds = now_milliseconds(); },
                  {},
                  {},
                  false});
  } else if (stream->kind != Stream::Kind::non_blocking) {
    push(stream, {.what = "cudaEventRecord"});
  }
  record->mark = {stream, stream->enqueued};
  record->clock = stream->clock;
  record->clock.join(state().host);
  return record;
}

namespace {

// An event of a capture brings the stream that waits for it into the capture, or, when it takes
// part already, makes it answer for the work of the event's stream.
cudaError_t wait_in_capture(const std::shared_ptr<Stream>& stream, const Record& record) {
  Capture& capture = *record.capture;
  if (capture.invalid) return cudaErrorStreamCaptureInvalidated;
  if (!stream->capture) {
    stream->capture = record.capture;
    capture.streams.push_back(stream);
    return cudaSuccess;
  }
  if (stream->capture != record.capture) return cudaErrorStreamCaptureMerge;
  Stream& recorded = *record.mark.stream;
  if (recorded.unjoined && &recorded != stream.get()) {
    recorded.unjoined = false;
    stream->unjoined = stream != capture.origin;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t wait_for(const std::shared_ptr<Stream>& stream, const Record& record) {
  if (record.capture) return wait_in_capture(stream, record);
  if (stream->capture) return cudaErrorStreamCaptureIsolation;
  if (!record.mark.reached()) stream->waits.push_back(record.mark);
  stream->clock.join(record.clock);
  return cudaSuccess;
}

// ---- waiting ------------------------------------------------------------------------------------

void host_has_seen(const Clock& clock) { state().host.join(clock); }

void synchronize(const Mark& mark, const Clock& clock) {
  run_until(mark);
  host_has_seen(clock);
}

void synchronize_device(int device) {
  for (const auto& stream : state().streams) {
    if (stream->device == device) synchronize({stream, stream->enqueued}, stream->clock);
  }
}

void progress(const Mark& mark) {
  if (options().seed && rng().below(2) && overtake()) return;
  if (!mark.reached()) run_towards(*mark.stream);
}

namespace {

template <typename Matters>
cudaError_t forbid_when(const char* name, Matters matters) {
  for (const auto& stream : state().streams) {
    if (!stream->capture || !matters(*stream)) continue;
    note("%s is forbidden while a stream is being captured", name);
    stream->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t forbid_in_capture(const char* name, const Stream* stream) {
  return forbid_when(name, [stream](const Stream& s) { return !stream || stream == &s; });
}

cudaError_t forbid_unless_relaxed(const char* name) {
  return forbid_when(name, [](const Stream& s) { return !s.capture->relaxed; });
}

// ---- what runs ----------------------------------------------------------------------------------

bool streams_can_overlap() { return state().overlap; }
uint32_t running_task() { return running.number; }
int running_kernel_device() {
  return running.task && running.task->work.kernel ? running.stream->device : kAnyDevice;
}

bool ordered_before_running(uint32_t task) {
  if (!running.task || task >= state().origins.size()) return true;
  const auto [stream, position] = state().origins[task];
  return running.task->clock[stream] >= position;
}

std::string running_work() {
  if (!running.task) return "";
  return running.task->work.what + ", stream " + std::to_string(running.stream->number) +
         " of device " + std::to_string(running.stream->device);
}

}  // namespace vgpu
