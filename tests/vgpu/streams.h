#pragma once
// Streams: queues of work that runs when something waits for it, and the order between them.
#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime.h"

namespace vgpu {

/// For each stream, by number, up to which position its work is known to have ended: a vector
/// clock.
class Clock {
 public:
  uint64_t operator[](size_t stream) const { return stream < at_.size() ? at_[stream] : 0; }
  void set(size_t stream, uint64_t position) {
    if (stream >= at_.size()) at_.resize(stream + 1);
    at_[stream] = position;
  }
  void join(const Clock& other) {
    for (size_t i = 0; i < other.at_.size(); ++i) set(i, std::max((*this)[i], other.at_[i]));
  }

 private:
  std::vector<uint64_t> at_;
};

struct Stream;

/// A position in a stream: reached when so many of its tasks have run.
struct Mark {
  std::shared_ptr<Stream> stream;
  uint64_t position = 0;
  bool reached() const;
};

/// What a stream is given to do. It may run several times when it is part of a graph.
struct Work {
  std::string what{};  ///< for reports
  std::function<void()> run{};
  std::optional<Region> from_host{}, to_host{};  ///< pinned memory that it copies from or to
  bool kernel = false;
};

/// Work in the queue of a stream.
struct Task {
  Work work;
  std::vector<Mark> waits;  ///< of other streams
  Clock clock;              ///< what has ended before it
  std::unique_ptr<Transfer> from_host, to_host;
};

/// Work recorded between cudaStreamBeginCapture and cudaStreamEndCapture, in the order of the
/// calls.
struct Capture {
  std::shared_ptr<Stream> origin;
  std::vector<std::shared_ptr<Stream>> streams;  ///< all that take part, the origin first
  std::vector<Work> work;
  bool relaxed = false;  ///< cudaStreamCaptureModeRelaxed
  bool invalid = false;
};

struct Stream {
  enum class Kind { legacy, blocking, non_blocking };
  uint32_t number = 0;
  int device = 0;
  Kind kind = Kind::blocking;
  std::deque<Task> queue;
  uint64_t enqueued = 0, done = 0;
  Clock clock;              ///< what has ended before the next task
  std::vector<Mark> waits;  ///< of the next task
  std::shared_ptr<Capture> capture;
  bool unjoined = false;  ///< has captured work that no event has brought back to the origin
};

inline bool Mark::reached() const { return stream->done >= position; }

/// A use of cudaEventRecord.
struct Record {
  Mark mark;
  Clock clock;
  std::shared_ptr<Capture> capture;  ///< when it was recorded in a capture
  double milliseconds = 0;           ///< when the stream reached it
};

struct Event {
  int device = 0;
  bool timed = true;
  std::shared_ptr<Record> record;  ///< the latest one
};

/// The stream behind a handle; null for one that does not exist (any more).
std::shared_ptr<Stream> find_stream(cudaStream_t handle);
cudaStream_t make_stream(bool blocking);
bool remove_stream(cudaStream_t handle);

/// Appends work to a stream, or records it when the stream is being captured.
cudaError_t submit(const std::shared_ptr<Stream>& stream, Work work);

/// Makes the next work of a stream wait for a record.
cudaError_t wait_for(const std::shared_ptr<Stream>& stream, const Record& record);

/// The position behind all work of a stream so far.
std::shared_ptr<Record> record_position(const std::shared_ptr<Stream>& stream, bool timed);

/// Runs work, of this and other streams, until the host may go on.
void synchronize(const Mark& mark, const Clock& clock);
void synchronize_device(int device);
/// Runs one task, if there is any, so that a host that polls makes progress.
void progress(const Mark& mark);
/// Tells the race detector that the host has seen this work to have ended.
void host_has_seen(const Clock& clock);

/// Reports a call that a capture in progress forbids and invalidates the capture; success when it
/// is allowed. `stream`: the only one whose capture matters, null for all.
cudaError_t forbid_in_capture(const char* name, const Stream* stream);
/// The same for calls that may wait for the device: only relaxed captures allow them.
cudaError_t forbid_unless_relaxed(const char* name);

/// The device whose kernel runs now; kAnyDevice when none does.
int running_kernel_device();
/// The name of what runs now, with its stream; empty outside of stream work.
std::string running_work();

}  // namespace vgpu
