// The API functions about streams, events, captures and graphs.
#include <set>

#include "streams.h"

using namespace vgpu;

namespace {

// A graph is the work of a capture in the order of its calls, which is one that its dependencies
// allow; launches run it in this order.
using Graph = std::vector<Work>;

template <typename T>
std::set<T*>& live() {
  static auto* all = new std::set<T*>;
  return *all;
}

// The object behind a handle; null unless it is one that exists.
template <typename T, typename Handle>
T* object_of(Handle handle) {
  T* object = reinterpret_cast<T*>(handle);
  return live<T>().count(object) ? object : nullptr;
}

template <typename T, typename Handle>
void give(Handle* handle, T* object) {
  live<T>().insert(object);
  *handle = reinterpret_cast<Handle>(object);
}

template <typename T, typename Handle>
cudaError_t destroy(Handle handle) {
  T* object = object_of<T>(handle);
  if (!object) return cudaErrorInvalidResourceHandle;
  live<T>().erase(object);
  delete object;
  return cudaSuccess;
}

// Types of their own, so that a handle of one kind is not taken for another.
struct GraphHandle {
  Graph work;
};
struct ExecHandle {
  Graph work;
};

cudaError_t with_stream(cudaStream_t handle,
                        const std::function<cudaError_t(const std::shared_ptr<Stream>&)>& body) {
  return api([&]() -> cudaError_t {
    const auto stream = find_stream(handle);
    return stream ? body(stream) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t with_event(cudaEvent_t handle, const std::function<cudaError_t(Event&)>& body) {
  return api([&]() -> cudaError_t {
    Event* event = object_of<Event>(handle);
    return event ? body(*event) : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t query(const Mark& mark, const Clock& clock) {
  if (mark.reached()) return host_has_seen(clock), cudaSuccess;
  progress(mark);
  return cudaErrorNotReady;
}

}  // namespace

extern "C" {

// ---- streams ------------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return api([&]() -> cudaError_t {
    if (flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) return cudaErrorInvalidValue;
    *stream = make_stream(!(flags & cudaStreamNonBlocking));
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  constexpr int kLeast = 0, kGreatest = -5;
  if (least) *least = kLeast;
  if (greatest) *greatest = kGreatest;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return with_stream(handle, [&](const std::shared_ptr<Stream>& stream) -> cudaError_t {
    if (stream->capture) return cudaErrorStreamCaptureUnsupported;
    return remove_stream(handle) ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return with_stream(handle, [&](const std::shared_ptr<Stream>& stream) -> cudaError_t {
    const cudaError_t error = forbid_in_capture("cudaStreamSynchronize", stream.get());
    if (error) return error;
    synchronize({stream, stream->enqueued}, stream->clock);
    return device_error(stream->device);
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return with_stream(handle, [&](const std::shared_ptr<Stream>& stream) -> cudaError_t {
    const cudaError_t error = forbid_in_capture("cudaStreamQuery", stream.get());
    return error ? error : query({stream, stream->enqueued}, stream->clock);
  });
}

cudaError_t cudaDeviceSynchronize() {
  return api([]() -> cudaError_t {
    const cudaError_t error = forbid_in_capture("cudaDeviceSynchronize", nullptr);
    if (error) return error;
    synchronize_device(current_device());
    return cudaSuccess;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
  return with_stream(handle, [&](const std::shared_ptr<Stream>& stream) -> cudaError_t {
    const Event* event = object_of<Event>(event_handle);
    if (!event) return cudaErrorInvalidResourceHandle;
    return event->record ? wait_for(stream, *event->record) : cudaSuccess;
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  return with_stream(handle, [&](const std::shared_ptr<Stream>& stream) -> cudaError_t {
    if (!function) return cudaErrorInvalidValue;
    return submit(stream, {.what = "cudaLaunchHostFunc", .run = [=] { function(data); }});
  });
}

// ---- events -------------------------------------------------------------------------------------

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned flags) {
  return api([&]() -> cudaError_t {
    constexpr unsigned kKnown = cudaEventBlockingSync | cudaEventDisableTiming;
    if (flags & ~kKnown) return cudaErrorInvalidValue;
    auto* event = new Event;
    event->device = current_device();
    event->timed = !(flags & cudaEventDisableTiming);
    give(handle, event);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* handle) {
  return cudaEventCreateWithFlags(handle, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return api([&] { return destroy<Event>(handle); });
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
  return with_event(handle, [&](Event& event) -> cudaError_t {
    const auto stream = find_stream(stream_handle);
    if (!stream || stream->device != event.device) return cudaErrorInvalidResourceHandle;
    event.record = record_position(stream, event.timed);
    return cudaSuccess;
  });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return with_event(handle, [&](Event& event) -> cudaError_t {
    if (!event.record) return cudaSuccess;
    if (event.record->capture) return cudaErrorCapturedEvent;
    if (const cudaError_t error = forbid_unless_relaxed("cudaEventSynchronize")) return error;
    synchronize(event.record->mark, event.record->clock);
    return device_error(event.device);
  });
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return with_event(handle, [&](Event& event) -> cudaError_t {
    if (!event.record) return cudaSuccess;
    if (event.record->capture) return cudaErrorCapturedEvent;
    if (const cudaError_t error = forbid_unless_relaxed("cudaEventQuery")) return error;
    return query(event.record->mark, event.record->clock);
  });
}

// The host's time between the two: it says how long the interpreter took, nothing about hardware.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return api([&]() -> cudaError_t {
    const Event *a = object_of<Event>(start), *b = object_of<Event>(end);
    if (!a || !b || !a->record || !b->record || !a->timed || !b->timed) {
      return cudaErrorInvalidResourceHandle;
    }
    if (a->record->capture || b->record->capture) return cudaErrorCapturedEvent;
    if (!a->record->mark.reached() || !b->record->mark.reached()) return cudaErrorNotReady;
    *milliseconds = static_cast<float>(b->record->milliseconds - a->record->milliseconds);
    return cudaSuccess;
  });
}

// ---- capture ------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  return with_stream(handle, [&](const std::shared_ptr<Stream>& stream) -> cudaError_t {
    if (stream->kind == Stream::Kind::legacy) return cudaErrorStreamCaptureUnsupported;
    if (stream->capture) return cudaErrorIllegalState;
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    stream->capture->relaxed = mode == cudaStreamCaptureModeRelaxed;
    stream->capture->streams.push_back(stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  *graph = nullptr;
  return with_stream(handle, [&](const std::shared_ptr<Stream>& stream) -> cudaError_t {
    const auto capture = stream->capture;
    if (!capture) return cudaErrorIllegalState;
    if (capture->origin != stream) return cudaErrorStreamCaptureUnmatched;
    bool unjoined = false;
    for (const auto& taking_part : capture->streams) {
      unjoined = unjoined || taking_part->unjoined;
      taking_part->unjoined = false;
      taking_part->capture = nullptr;
    }
    capture->streams.clear();
    capture->origin = nullptr;
    if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
    if (unjoined) return cudaErrorStreamCaptureUnjoined;
    give(graph, new GraphHandle{std::move(capture->work)});
    return cudaSuccess;
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return with_stream(handle, [&](const std::shared_ptr<Stream>& stream) -> cudaError_t {
    *status = !stream->capture           ? cudaStreamCaptureStatusNone
              : stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

// ---- graphs -------------------------------------------------------------------------------------

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t handle, unsigned long long) {
  return api([&]() -> cudaError_t {
    const auto* graph = object_of<GraphHandle>(handle);
    if (!graph) return cudaErrorInvalidValue;
    give(exec, new ExecHandle{graph->work});
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long flags) {
  return cudaGraphInstantiate(exec, graph, flags);
}

// Nodes themselves are not accessible: only their number is.
cudaError_t cudaGraphGetNodes(cudaGraph_t handle, cudaGraphNode_t* nodes, size_t* count) {
  return api([&]() -> cudaError_t {
    const auto* graph = object_of<GraphHandle>(handle);
    if (!graph) return cudaErrorInvalidValue;
    if (nodes) fault("cudaGraphGetNodes: access to nodes is not implemented");
    *count = graph->work.size();
    return cudaSuccess;
  });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t) {
  return api([&] { return object_of<ExecHandle>(exec) ? cudaSuccess : cudaErrorInvalidValue; });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream_handle) {
  return with_stream(stream_handle, [&](const std::shared_ptr<Stream>& stream) -> cudaError_t {
    const auto* exec = object_of<ExecHandle>(handle);
    if (!exec) return cudaErrorInvalidValue;
    for (const Work& work : exec->work) {
      Work node = work;
      node.what += " (graph)";
      if (const cudaError_t error = submit(stream, std::move(node))) return error;
    }
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t handle) {
  return api([&] { return destroy<ExecHandle>(handle); });
}

cudaError_t cudaGraphDestroy(cudaGraph_t handle) {
  return api([&] { return destroy<GraphHandle>(handle); });
}

}  // extern "C"
