// What the runtime answers about streams, events, captures and graphs.
#include <functional>
#include <thread>

#include "cases.h"

namespace vgpu::test {
namespace {

constexpr int kN = 64;
constexpr size_t kBytes = kN * sizeof(float);

__global__ void fill(float* y, float value) { y[threadIdx.x] = value; }
__global__ void scale(float* y, float factor) { y[threadIdx.x] *= factor; }
__global__ void add(float* y, const float* x) { y[threadIdx.x] += x[threadIdx.x]; }

void expect(cudaError_t got, cudaError_t wanted, const char* what) {
  require(got == wanted, std::string(what) + ": " + cudaGetErrorName(got) + " instead of " +
                             cudaGetErrorName(wanted));
}

cudaStream_t new_stream(unsigned flags = cudaStreamNonBlocking) {
  cudaStream_t stream;
  require_success(cudaStreamCreateWithFlags(&stream, flags), "stream");
  return stream;
}

cudaEvent_t new_event(unsigned flags = cudaEventDisableTiming) {
  cudaEvent_t event;
  require_success(cudaEventCreateWithFlags(&event, flags), "event");
  return event;
}

// ---- streams and events -------------------------------------------------------------------------

void nothing_runs_early() {
  float* pinned = nullptr;
  cudaMallocHost(&pinned, kBytes);
  const Buffer<float> x(kN);
  const cudaStream_t stream = new_stream();
  const cudaEvent_t event = new_event();
  fill<<<1, kN, 0, stream>>>(x.data(), 4);
  cudaMemcpyAsync(pinned, x.data(), kBytes, cudaMemcpyDeviceToHost, stream);
  cudaEventRecord(event, stream);
  require(pinned[0] != 4, "the copy has not run");
  expect(cudaStreamQuery(stream), cudaErrorNotReady, "stream query");
  expect(cudaEventQuery(event), cudaErrorNotReady, "event query");
  cudaError_t polled = cudaErrorNotReady;
  for (int i = 0; i < 100 && polled == cudaErrorNotReady; ++i) polled = cudaEventQuery(event);
  expect(polled, cudaSuccess, "polling ends");
  require(pinned[0] == 4, "the copy has run");
  expect(cudaStreamQuery(stream), cudaSuccess, "stream query at the end");
  cudaFreeHost(pinned);
}

void at_once() {  // VGPU_DEFER=0
  float* pinned = nullptr;
  cudaMallocHost(&pinned, kBytes);
  const Buffer<float> x(kN);
  fill<<<1, kN>>>(x.data(), 4);
  cudaMemcpyAsync(pinned, x.data(), kBytes, cudaMemcpyDeviceToHost, nullptr);
  require(pinned[0] == 4, "the copy has run");
  cudaFreeHost(pinned);
}

void event_states() {
  const cudaStream_t stream = new_stream();
  const cudaEvent_t start = new_event(cudaEventDefault), end = new_event(cudaEventDefault);
  const cudaEvent_t untimed = new_event();
  float milliseconds = -1;
  expect(cudaEventQuery(start), cudaSuccess, "never recorded");
  expect(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle,
         "nor timed");
  const Buffer<float> x(kN);
  cudaEventRecord(start, stream);
  fill<<<1, kN, 0, stream>>>(x.data(), 4);
  cudaEventRecord(end, stream);
  cudaEventRecord(untimed, stream);
  expect(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorNotReady, "not reached");
  expect(cudaEventSynchronize(end), cudaSuccess, "wait");
  expect(cudaEventElapsedTime(&milliseconds, start, end), cudaSuccess, "time");
  require(milliseconds > 0 && milliseconds < 60000, "time passes");
  expect(cudaEventElapsedTime(&milliseconds, start, untimed), cudaErrorInvalidResourceHandle,
         "untimed");
  expect(cudaEventDestroy(end), cudaSuccess, "destroy");
  expect(cudaEventQuery(end), cudaErrorInvalidResourceHandle, "destroyed");
  expect(cudaStreamDestroy(stream), cudaSuccess, "destroy");
  expect(cudaStreamDestroy(stream), cudaErrorInvalidResourceHandle, "destroy twice");
}

// A diamond over three streams, closed by events, many times: the order is always respected, and
// the race detector knows that.
void ordered_streams() {
  const Buffer<float> x(kN), y(kN), z(kN);
  const cudaStream_t a = new_stream(), b = new_stream(), c = new_stream(cudaStreamDefault);
  const cudaEvent_t start = new_event(), b_done = new_event(), c_done = new_event();
  for (int round = 0; round < 10; ++round) {
    fill<<<1, kN, 0, a>>>(x.data(), 1.f);
    cudaEventRecord(start, a);
    cudaStreamWaitEvent(b, start, 0);
    cudaStreamWaitEvent(c, start, 0);
    cudaMemcpyAsync(y.data(), x.data(), kBytes, cudaMemcpyDeviceToDevice, b);
    scale<<<1, kN, 0, b>>>(y.data(), 2.f);
    cudaMemcpyAsync(z.data(), x.data(), kBytes, cudaMemcpyDeviceToDevice, c);
    scale<<<1, kN, 0, c>>>(z.data(), 3.f);
    cudaEventRecord(b_done, b);
    cudaEventRecord(c_done, c);
    cudaStreamWaitEvent(a, b_done, 0);
    cudaStreamWaitEvent(a, c_done, 0);
    add<<<1, kN, 0, a>>>(x.data(), y.data());
    add<<<1, kN, 0, a>>>(x.data(), z.data());
  }
  expect(cudaStreamSynchronize(a), cudaSuccess, "wait");
  require(x.download()[kN - 1] == 6, "1 + 2 + 3");
}

// The legacy default stream and blocking streams wait for each other.
void legacy_order() {
  const Buffer<float> x(kN);
  const cudaStream_t a = new_stream(cudaStreamDefault), b = new_stream(cudaStreamDefault);
  for (int round = 0; round < 10; ++round) {
    fill<<<1, kN, 0, a>>>(x.data(), 1.f);
    scale<<<1, kN>>>(x.data(), 2.f);
    scale<<<1, kN, 0, b>>>(x.data(), 5.f);
    scale<<<1, kN>>>(x.data(), 1.f);
  }
  require(x.download()[0] == 10, "1 * 2 * 5");
}

// The host orders streams by waiting.
void order_by_host() {
  const Buffer<float> x(kN);
  const cudaStream_t a = new_stream(), b = new_stream();
  const cudaEvent_t done = new_event();
  fill<<<1, kN, 0, a>>>(x.data(), 1.f);
  expect(cudaStreamSynchronize(a), cudaSuccess, "wait");
  scale<<<1, kN, 0, b>>>(x.data(), 2.f);
  cudaEventRecord(done, b);
  while (cudaEventQuery(done) == cudaErrorNotReady) {
  }
  scale<<<1, kN, 0, a>>>(x.data(), 3.f);
  expect(cudaDeviceSynchronize(), cudaSuccess, "wait");
  require(x.download()[0] == 6, "1 * 2 * 3");
}

void host_functions() {
  std::vector<int> order;
  const cudaStream_t stream = new_stream();
  const auto append = [](void* data) {
    auto* values = static_cast<std::vector<int>*>(data);
    values->push_back(static_cast<int>(values->size()));
  };
  cudaLaunchHostFunc(stream, append, &order);
  cudaLaunchHostFunc(stream, append, &order);
  require(order.empty(), "not yet");
  expect(cudaStreamSynchronize(stream), cudaSuccess, "wait");
  require(order == std::vector<int>({0, 1}), "in order");
}

// Host threads work in streams of their own; an error is told to the thread that made it.
void host_threads() {
  const auto work = [](float value) {
    const Buffer<float> x(kN);
    const cudaStream_t stream = new_stream();
    for (int i = 0; i < 20; ++i) {
      fill<<<1, kN, 0, stream>>>(x.data(), value);
      scale<<<1, kN, 0, stream>>>(x.data(), 2.f);
    }
    expect(cudaStreamSynchronize(stream), cudaSuccess, "wait");
    require(x.download()[kN - 1] == 2 * value, "the result of a thread");
  };
  void* p = nullptr;
  expect(cudaMalloc(&p, size_t{1} << 50), cudaErrorMemoryAllocation, "too much");
  std::thread first([&] { work(1), expect(cudaGetLastError(), cudaSuccess, "no error"); });
  std::thread second([&] { work(2); });
  first.join(), second.join();
  expect(cudaGetLastError(), cudaErrorMemoryAllocation, "the error");
}

// ---- captures and graphs ------------------------------------------------------------------------

cudaStream_t begin_capture(unsigned flags = cudaStreamNonBlocking) {
  const cudaStream_t stream = new_stream(flags);
  expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess, "begin");
  return stream;
}

void expect_status(cudaStream_t stream, cudaStreamCaptureStatus wanted) {
  cudaStreamCaptureStatus status;
  expect(cudaStreamIsCapturing(stream, &status), cudaSuccess, "status");
  require(status == wanted, "status of the capture");
}

void replay() {
  float* pinned = nullptr;
  cudaMallocHost(&pinned, kBytes);
  for (int i = 0; i < kN; ++i) pinned[i] = 1;
  const Buffer<float> x(kN), y(kN);
  const cudaStream_t stream = begin_capture(), side = new_stream();
  const cudaEvent_t fork = new_event(), join = new_event();
  expect_status(stream, cudaStreamCaptureStatusActive);
  cudaMemcpyAsync(x.data(), pinned, kBytes, cudaMemcpyHostToDevice, stream);
  cudaEventRecord(fork, stream);
  cudaStreamWaitEvent(side, fork, 0);
  expect_status(side, cudaStreamCaptureStatusActive);
  fill<<<1, kN, 0, side>>>(y.data(), 10.f);
  cudaEventRecord(join, side);
  expect(cudaEventSynchronize(join), cudaErrorCapturedEvent, "an event of the capture");
  scale<<<1, kN, 0, stream>>>(x.data(), 2.f);
  cudaStreamWaitEvent(stream, join, 0);
  add<<<1, kN, 0, stream>>>(x.data(), y.data());
  cudaGraph_t graph;
  expect(cudaStreamEndCapture(stream, &graph), cudaSuccess, "end");
  expect_status(side, cudaStreamCaptureStatusNone);
  size_t nodes = 0;
  expect(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess, "nodes");
  require(nodes == 4, "four nodes");
  cudaGraphExec_t exec;
  expect(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess, "instantiate");
  expect(cudaGraphDestroy(graph), cudaSuccess, "destroy");
  for (const float value : {1.f, 5.f}) {
    for (int i = 0; i < kN; ++i) pinned[i] = value;
    expect(cudaGraphLaunch(exec, stream), cudaSuccess, "launch");
    expect(cudaStreamSynchronize(stream), cudaSuccess, "wait");
    require(x.download()[kN - 1] == 2 * value + 10, "the result of a replay");
  }
  expect(cudaGraphExecDestroy(exec), cudaSuccess, "destroy");
  expect(cudaGraphLaunch(exec, stream), cudaErrorInvalidValue, "destroyed");
  cudaFreeHost(pinned);
}

void capture_runs_nothing() {
  const Buffer<float> x(std::vector<float>(kN, 3.f));
  const cudaStream_t stream = begin_capture();
  scale<<<1, kN, 0, stream>>>(x.data(), 2.f);
  cudaGraph_t graph;
  expect(cudaStreamEndCapture(stream, &graph), cudaSuccess, "end");
  finish();
  require(x.download()[0] == 3, "recorded, not run");
}

// What a capture forbids returns this error and ends the capture without a graph.
void expect_forbidden(const char* what, cudaError_t wanted, unsigned flags,
                      const std::function<cudaError_t(cudaStream_t)>& call) {
  const cudaStream_t stream = begin_capture(flags);
  expect(call(stream), wanted, what);
  expect_status(stream, cudaStreamCaptureStatusInvalidated);
  cudaGraph_t graph;
  expect(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated, what);
  require(graph == nullptr, "no graph");
  expect_status(stream, cudaStreamCaptureStatusNone);
  cudaGetLastError();
}

void forbidden_in_captures() {
  const Buffer<float> x(kN);
  std::vector<float> pageable(kN);
  void* p = nullptr;
  const auto unsupported = [&](const char* what,
                               const std::function<cudaError_t(cudaStream_t)>& call) {
    expect_forbidden(what, cudaErrorStreamCaptureUnsupported, cudaStreamNonBlocking, call);
  };
  unsupported("cudaMalloc", [&](cudaStream_t) { return cudaMalloc(&p, 4); });
  unsupported("cudaMallocAsync", [&](cudaStream_t s) { return cudaMallocAsync(&p, 4, s); });
  unsupported("cudaMallocHost", [&](cudaStream_t) { return cudaMallocHost(&p, 4); });
  unsupported("cudaFree", [&](cudaStream_t) { return cudaFree(x.data()); });
  const cudaEvent_t event = new_event();
  cudaEventRecord(event, new_stream());
  unsupported("cudaEventQuery", [=](cudaStream_t) { return cudaEventQuery(event); });
  unsupported("cudaEventSynchronize", [=](cudaStream_t) { return cudaEventSynchronize(event); });
  unsupported("cudaStreamSynchronize", [](cudaStream_t s) { return cudaStreamSynchronize(s); });
  unsupported("cudaStreamQuery", [](cudaStream_t s) { return cudaStreamQuery(s); });
  unsupported("cudaDeviceSynchronize", [](cudaStream_t) { return cudaDeviceSynchronize(); });
  unsupported("pageable source", [&](cudaStream_t s) {
    return cudaMemcpyAsync(x.data(), pageable.data(), kBytes, cudaMemcpyHostToDevice, s);
  });
  expect_forbidden("legacy stream", cudaErrorStreamCaptureImplicit, cudaStreamDefault,
                   [&](cudaStream_t) { return cudaMemsetAsync(x.data(), 0, kBytes, nullptr); });
  expect(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal),
         cudaErrorStreamCaptureUnsupported, "capture of the legacy stream");
}

void relaxed_capture() {
  const cudaStream_t stream = new_stream();
  void* p = nullptr;
  expect(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), cudaSuccess, "begin");
  expect(cudaMalloc(&p, 4), cudaSuccess, "allocation");
  cudaGraph_t graph;
  expect(cudaStreamEndCapture(stream, &graph), cudaSuccess, "end");
  expect(cudaFree(p), cudaSuccess, "free");
}

void broken_captures() {
  const Buffer<float> x(kN);
  cudaGraph_t graph;
  const cudaStream_t stream = begin_capture(), side = new_stream();
  const cudaEvent_t fork = new_event(), outside = new_event();
  expect(cudaEventRecord(outside, side), cudaSuccess, "record");
  expect(cudaStreamWaitEvent(stream, outside, 0), cudaErrorStreamCaptureIsolation,
         "uncaptured work");
  cudaEventRecord(fork, stream);
  cudaStreamWaitEvent(side, fork, 0);
  fill<<<1, kN, 0, side>>>(x.data(), 1.f);
  expect(cudaStreamEndCapture(side, &graph), cudaErrorStreamCaptureUnmatched, "another stream");
  expect(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureUnjoined, "unjoined");
  expect(cudaStreamEndCapture(stream, &graph), cudaErrorIllegalState, "no capture");
}

}  // namespace

std::vector<Scenario> stream_scenarios() {
  return {
      {"nothing runs early", nothing_runs_early},
      {"work at once", at_once, {"VGPU_DEFER=0"}},
      {"states of events", event_states},
      {"order by events", ordered_streams},
      {"order by events, seed 1", ordered_streams, {"VGPU_SEED=1"}},
      {"order by events, seed 2", ordered_streams, {"VGPU_SEED=2"}},
      {"legacy stream", legacy_order},
      {"legacy stream, seed 1", legacy_order, {"VGPU_SEED=1"}},
      {"order by the host", order_by_host, {"VGPU_SEED=1"}},
      {"host functions", host_functions},
      {"host threads", host_threads, {"VGPU_SEED=1"}},
      {"graph replay", replay},
      {"graph replay, guarded", replay, {"VGPU_GUARD=1", "VGPU_SEED=1"}},
      {"capture runs nothing", capture_runs_nothing},
      {"forbidden in captures", forbidden_in_captures, {}, 0, "cudaMalloc is forbidden"},
      {"relaxed capture", relaxed_capture},
      {"broken captures", broken_captures},
  };
}

}  // namespace vgpu::test
