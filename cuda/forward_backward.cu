// Sums over the paths of weighted acceptors; the recursions are derived in docs/lf-mmi.md. Numbers
// are m 2^e (cuda/scaled.cuh), which leave no range. The kernels:
//   weights    a thread per arc or state: logarithms become numbers;
//   frames     a group of threads per frame (cuda/rows.cuh) finds its largest logit, which is taken
//              off before the exponential and added to log Z at the end, and logits that are none;
//   walk       a block per item and direction, forwards and backwards at the same time. A frame is
//              two steps with a barrier after each: threads take the exponentials of the classes,
//              then sum over the arcs of a state each, those that enter it or those that leave it.
//              A leak takes a sum over the block. Rows of states and classes are in global memory;
//              the rows of all frames are kept when there are to be posteriors;
//   totals     a block per item: log Z, from Z and the largest logits;
//   posteriors a block per frame: a thread sums a class over its arcs, in their order.
#include "cuda/rows.cuh"
#include "cuda/scaled.cuh"

namespace centroid::cuda {
namespace {

constexpr int kBlock = 256;

template <typename T>
constexpr int kExpDegree = sizeof(T) == 4 ? 9 : 12;

// FsaBatch::Arcs with weights as numbers.
struct Arcs {
  const int32_t *offsets, *from, *to, *label;
  const Scaled* weight;
};

struct Frame {
  double most;
  double bad;  // 1 where a logit is NaN or +inf
};

template <typename T>
struct Problem {
  using Stored = StoredScaled<T>;

  const T* logits;
  const int64_t* lengths;
  int64_t batch, time, classes, width;  // width: the most states of an acceptor
  bool shared, leaks;
  const int32_t* state_offsets;
  Arcs by_to, by_from, by_label;
  Scaled *initial, *final, *leak;  // (S); leak with its coefficient
  Frame* frames;                   // (batch, time)
  Scaled* emit;                    // (batch, 2, classes): of one frame
  Scaled* rows;                    // (batch, 2, 2, width): the states of two frames
  Stored*
      states;  // (2, batch, time, width): of the ends of a frame's arcs; null without posteriors
  Scaled* totals;  // (batch): Z; m is NaN for a bad item
  double* log_z;
  T* posteriors;

  CENTROID_DEVICE int64_t acceptor(int64_t b) const { return shared ? 0 : b; }
  CENTROID_DEVICE Stored* states_of(int direction, int64_t row) const {
    return states + (direction * batch * time + row) * width;
  }
  CENTROID_DEVICE Scaled emission(int64_t row, int64_t k) const {
    const double x = static_cast<double>(logits[row * classes + k]);
    return scaled_exp<kExpDegree<T>>(x - frames[row].most);
  }
};

struct Numbers {
  const double* logs;
  double factor;  // its logarithm
  Scaled* values;
  CENTROID_DEVICE void operator()(int64_t i) const {
    const double z = logs[i] + factor;
    if (z > 0) {  // scaled_exp is for arguments up to 0
      const Scaled inverse = scaled_exp<12>(-z);
      values[i] = Scaled::of(1 / inverse.m, -inverse.e);
    } else {
      values[i] = scaled_exp<12>(z);
    }
  }
};

template <typename T>
struct FrameRow {
  Problem<T> p;

  template <typename Group>
  CENTROID_DEVICE void operator()(Group& group, int64_t r) const {
    const int64_t b = r / p.time, n = p.classes;
    if (r - b * p.time >= p.lengths[b]) return;
    T v[Group::kValues], most = -kInf<T>, bad = 0;
    group.each_tile(n, [&](int64_t at) {
      group.load(p.logits + r * n + at, n - at, -kInf<T>, v);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) {
        most = MaxNumber{}(most, v[i]);
        bad = v[i] < kInf<T> ? bad : T(1);
      }
    });
    most = group.max(most);
    bad = group.max(bad);
    if (group.lane == 0) p.frames[r] = {static_cast<double>(most), static_cast<double>(bad)};
  }
};

// The sum over the block's threads, in the order of warps; every thread receives it. `shared` holds
// a Scaled per warp, free for reuse after the next barrier.
CENTROID_DEVICE Scaled block_sum(Scaled value, Scaled* shared) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const Scaled other{__shfl_xor_sync(kFullMask, value.m, step),
                       __shfl_xor_sync(kFullMask, value.e, step)};
    value = value + other;
  }
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = shared[0];
  for (int w = 1; w < kBlock / kWarp; ++w) value = value + shared[w];
  return value;
}

// The sums over the arcs of each state of the block, from the states at their other ends.
template <bool kForward>
CENTROID_DEVICE Scaled sum_arcs(const Arcs& arcs, int32_t state, const Scaled* emit,
                                const Scaled* from) {
  Scaled sum = Scaled::zero();
  for (int32_t i = arcs.offsets[state]; i < arcs.offsets[state + 1]; ++i) {
    const Scaled& other = from[kForward ? arcs.from[i] : arcs.to[i]];
    sum = sum + arcs.weight[i] * emit[arcs.label[i]] * other;
  }
  return sum;
}

template <bool kForward, typename T>
CENTROID_DEVICE void walk(const Problem<T>& p, int64_t b, int time, Scaled* shared) {
  const int direction = kForward ? 0 : 1;
  const int32_t first = p.state_offsets[p.acceptor(b)];
  const int count = p.state_offsets[p.acceptor(b) + 1] - first;
  Scaled* emit = p.emit + (b * 2 + direction) * p.classes;
  Scaled* rows = p.rows + (b * 2 + direction) * 2 * p.width;
  const Arcs& arcs = kForward ? p.by_to : p.by_from;
  const Scaled* start = (kForward ? p.initial : p.final) + first;
  for (int s = threadIdx.x; s < count; s += kBlock) rows[s] = start[s];
  for (int i = 0; i < time; ++i) {
    const int t = kForward ? i : time - 1 - i;
    const int64_t row = b * p.time + t;
    const Scaled* from = rows + i % 2 * p.width;
    Scaled* to = rows + (i + 1) % 2 * p.width;
    for (int64_t k = threadIdx.x; k < p.classes; k += kBlock) emit[k] = p.emission(row, k);
    if (p.states) {
      auto* kept = p.states_of(direction, row);
      for (int s = threadIdx.x; s < count; s += kBlock) kept[s] = StoredScaled<T>::of(from[s]);
    }
    __syncthreads();
    const bool leak = p.leaks && i + 1 < time;
    Scaled jump = Scaled::zero();
    for (int s = threadIdx.x; s < count; s += kBlock) {
      const Scaled sum = sum_arcs<kForward>(arcs, first + s, emit, from);
      to[s] = sum;
      if (leak) jump = jump + (kForward ? sum : sum * p.leak[first + s]);
    }
    if (leak) {
      jump = block_sum(jump, shared);
      for (int s = threadIdx.x; s < count; s += kBlock) {
        to[s] = to[s] + (kForward ? jump * p.leak[first + s] : jump);
      }
    }
    __syncthreads();
  }
  if (!kForward) return;
  Scaled end = Scaled::zero();
  const Scaled* last = rows + time % 2 * p.width;
  for (int s = threadIdx.x; s < count; s += kBlock) end = end + last[s] * p.final[first + s];
  end = block_sum(end, shared);
  if (threadIdx.x == 0) p.totals[b] = end;
}

// 4 blocks: left to itself, ptxas aims at more and spills.
template <typename T>
__global__ void __launch_bounds__(kBlock, 4) walk_kernel(Problem<T> p) {
  __shared__ Scaled shared[kBlock / kWarp];
  const int64_t b = blockIdx.x;
  const int time = static_cast<int>(p.lengths[b]);
  if (blockIdx.y == 1)
    walk<false>(p, b, time, shared);
  else
    walk<true>(p, b, time, shared);
}

template <typename T>
__global__ void __launch_bounds__(kBlock) totals_kernel(Problem<T> p) {
  __shared__ double sums[kBlock / kWarp];
  const int64_t b = blockIdx.x;
  const int time = static_cast<int>(p.lengths[b]);
  double most = 0;
  int bad = 0;
  for (int t = threadIdx.x; t < time; t += kBlock) {
    const Frame frame = p.frames[b * p.time + t];
    bad |= frame.bad != 0;
    if (frame.most > -kInf<double>) most += frame.most;  // else there is no path
  }
  bad = __syncthreads_or(bad);
  most = block_reduce<kBlock>(most, Sum{}, sums);
  if (threadIdx.x > 0) return;
  const Scaled z = p.totals[b];
  if (bad) {
    p.totals[b] = {NAN, 0};
    p.log_z[b] = NAN;
  } else {
    const double log_z = log(z.m) + static_cast<double>(z.e) * 0.6931471805599453 + most;
    p.log_z[b] = z.m == 0 ? -kInf<double> : log_z;
  }
}

template <typename T>
__global__ void __launch_bounds__(kBlock) posteriors_kernel(Problem<T> p) {
  const int64_t row = blockIdx.x, b = row / p.time, g = p.acceptor(b);
  const bool valid = row - b * p.time < p.lengths[b];
  const Scaled z = p.totals[b];
  const auto *alpha = p.states_of(0, row), *beta = p.states_of(1, row);
  const Arcs& arcs = p.by_label;
  for (int64_t k = threadIdx.x; k < p.classes; k += kBlock) {
    double posterior = 0;
    if (valid && z.m != z.m) {
      posterior = NAN;
    } else if (valid && z.m > 0) {
      const int32_t* range = arcs.offsets + g * p.classes + k;
      Scaled sum = Scaled::zero();
      for (int32_t i = range[0]; i < range[1]; ++i) {
        sum = sum + alpha[arcs.from[i]].get() * arcs.weight[i] * beta[arcs.to[i]].get();
      }
      sum = sum * p.emission(row, k);
      const long long exponent = sum.e - z.e;  // at most 0, but for rounding
      const long long e = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
      posterior = sum.m / z.m * __longlong_as_double((1023 + e) << 52);
    }
    p.posteriors[row * p.classes + k] = static_cast<T>(posterior);
  }
}

// Memory for n elements of a type that is no dtype.
template <typename S>
struct Scratch {
  Tensor memory;
  S* data = nullptr;
  Scratch(int64_t n, Device device) {
    static_assert(sizeof(S) % 8 == 0);
    memory =
        empty({std::max<int64_t>(n, 1) * static_cast<int64_t>(sizeof(S) / 8)}, DType::i64, device);
    data = reinterpret_cast<S*>(memory.data<int64_t>());
  }
};

Arcs arcs_of(const FsaBatch::Arcs& arcs, Scaled* weights) {
  const int64_t count = arcs.weight.numel();
  const double* logs = arcs.weight.data<double>();
  for_each(count, Numbers{logs, 0, weights});
  return {arcs.offsets.data<int32_t>(), arcs.from.data<int32_t>(), arcs.to.data<int32_t>(),
          arcs.label.data<int32_t>(), weights};
}

template <typename T>
void run(Problem<T> p, const FsaBatch& fsa, double leaky, Device device) {
  const int64_t arcs = fsa.by_to.weight.numel(), states = fsa.initial.numel();
  const int64_t frames = p.batch * p.time;
  const Scratch<Scaled> weights(3 * arcs + 3 * states, device);
  const Scratch<Frame> frame_memory(frames, device);
  const Scratch<Scaled> emit(p.batch * 2 * p.classes, device);
  const Scratch<Scaled> rows(p.batch * 4 * p.width, device);
  const Scratch<StoredScaled<T>> kept(p.posteriors ? 2 * frames * p.width : 0, device);
  const Scratch<Scaled> totals(p.batch, device);
  p.by_to = arcs_of(fsa.by_to, weights.data);
  p.by_from = arcs_of(fsa.by_from, weights.data + arcs);
  if (p.posteriors) p.by_label = arcs_of(fsa.by_label, weights.data + 2 * arcs);
  p.initial = weights.data + 3 * arcs;
  p.final = p.initial + states;
  p.leak = p.final + states;
  for_each(states, Numbers{fsa.initial.data<double>(), 0, p.initial});
  for_each(states, Numbers{fsa.final.data<double>(), 0, p.final});
  if (p.leaks) for_each(states, Numbers{fsa.leak.data<double>(), std::log(leaky), p.leak});
  p.frames = frame_memory.data;
  p.emit = emit.data;
  p.rows = rows.data;
  p.states = p.posteriors ? kept.data : nullptr;
  p.totals = totals.data;

  for_rows<T>(frames, p.classes, wide_rows<T>(p.classes, {p.logits}), FrameRow<T>{p});
  launch(walk_kernel<T>, dim3(static_cast<unsigned>(p.batch), p.posteriors ? 2 : 1), kBlock, 0, p);
  launch(totals_kernel<T>, static_cast<unsigned>(p.batch), kBlock, 0, p);
  if (p.posteriors) launch(posteriors_kernel<T>, static_cast<unsigned>(frames), kBlock, 0, p);
}

}  // namespace

void forward_backward(const Tensor& logits, const Tensor& lengths, const FsaBatch& fsa,
                      double leaky, const Tensor& log_z, const Tensor& posteriors) {
  dispatch_float(logits.dtype(), "forward_backward", [&]<typename T>() {
    Problem<T> p{};
    p.logits = logits.data<T>();
    p.lengths = lengths.data<int64_t>();
    p.batch = logits.size(0), p.time = logits.size(1), p.classes = logits.size(2);
    p.width = fsa.most_states;
    p.shared = fsa.count == 1, p.leaks = leaky > 0;
    p.state_offsets = fsa.state_offsets.data<int32_t>();
    p.log_z = log_z.data<double>(), p.posteriors = data_or_null<T>(posteriors);
    run(p, fsa, leaky, logits.device());
  });
}

}  // namespace centroid::cuda
