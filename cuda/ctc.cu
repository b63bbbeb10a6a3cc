// Connectionist temporal classification; the recursions are derived in docs/ctc.md. Four kernels:
//   labels     a block per item checks its targets and links equal ones;
//   frames     a group of threads per frame (cuda/rows.cuh) finds its softmax's denominator;
//   walk       a block per item and direction, forwards and backwards at the same time: thread u
//              holds blank u and label u, and gets what it needs of its neighbour by a shuffle, or
//              between warps through shared memory with one barrier per frame; logits are fetched
//              kAhead frames ahead. Targets of 512 labels and more walk with their states in global
//              memory. The states of all frames are kept when there is to be a gradient;
//   gradients  a group per frame: softmax minus posterior. A thread sums a class over its labels
//              in their order.
// A softmax's denominator is the same factor for all paths: the walk goes by e^(x - largest x), and
// the denominators are taken off at the end.
#include "cuda/rows.cuh"
#include "cuda/scaled.cuh"

namespace centroid::cuda {
namespace {

constexpr int kAhead = 4;
constexpr int kFarThreads = 256;

// log of the softmax's denominator is most + log(1 + rest): near a certain class, where the loss is
// small, rest has the digits that the sum would lose.
struct Frame {
  double most, rest;
  Scaled blank;  // e^(logit of the blank - most)
};

// Of an item with probability p = m 2^e: 1 / m, or 0 when no gradient is to be had, or NaN.
struct Total {
  double inverse;
  long long exponent;
};

template <typename T>
constexpr int kExpDegree = sizeof(T) == 4 ? 9 : 12;

template <typename T>
struct Ctc {
  using Stored = StoredScaled<T>;

  const T* logits;
  const int32_t* targets;
  const int64_t *input_lengths, *target_lengths;
  int64_t batch, time, classes, width, blank;
  int32_t* good;   // (batch), 0: an item with a label that is none
  int32_t* links;  // (batch, width), see labels_kernel; null without gradient, as the next two
  Stored* states;  // (2, batch, time, 2, width + 1): forwards and backwards, blanks and labels
  Total* totals;   // (batch)
  Frame* frames;   // (batch, time)
  Scaled* far;     // (batch, 2, 2, 2, width + 1): states of two frames; null for short targets
  T *losses, *dlogits;

  CENTROID_DEVICE Stored* states_of(int direction, int64_t b) const {
    return states + (direction * batch + b) * time * 2 * (width + 1);
  }
};

// links[u] is the next position with the label of u (or the number of labels), as ~next for the
// first of its label.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    labels_kernel(Ctc<T> c, Fault* fault, unsigned long long op, unsigned long long blank_op) {
  const int64_t b = blockIdx.x;
  const int32_t* labels = c.targets + b * c.width;
  const int count = static_cast<int>(c.target_lengths[b]);
  int bad = 0;
  for (int u = threadIdx.x; u < count; u += kThreads) {
    const int32_t label = labels[u];
    if (label >= 0 && label < c.classes && label != c.blank) continue;
    bad = 1;
    record_fault(fault, label == c.blank ? blank_op : op, label, b * c.width + u, c.classes);
  }
  bad = __syncthreads_or(bad);
  if (threadIdx.x == 0) c.good[b] = !bad;
  if (!c.links) return;
  for (int u = threadIdx.x; u < count; u += kThreads) {
    int next = u + 1, before = u - 1;
    while (next < count && labels[next] != labels[u]) ++next;
    while (before >= 0 && labels[before] != labels[u]) --before;
    c.links[b * c.width + u] = before < 0 ? ~next : next;
  }
}

template <typename T>
struct FrameRow {
  Ctc<T> c;

  template <typename Group>
  CENTROID_DEVICE void operator()(Group& group, int64_t r) const {
    const int64_t b = r / c.time, n = c.classes;
    if (r - b * c.time >= c.input_lengths[b]) return;
    const T* x = c.logits + r * n;
    T v[Group::kValues], most = -kInf<T>, others = 0, hits = 0;
    group.each_tile(n, [&](int64_t at) {
      group.load(x + at, n - at, -kInf<T>, v);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) most = MaxNumber{}(most, v[i]);
    });
    most = group.max(most);
    group.each_tile(n, [&](int64_t at) {
      if (!Group::one_tile(n)) group.load(x + at, n - at, -kInf<T>, v);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) {
        const bool hit = v[i] == most;
        hits += hit ? T(1) : T(0);
        others += hit ? T(0) : math::exp(v[i] - most);
      }
    });
    others = group.sum(others);
    hits = group.sum(hits);
    if (group.lane != 0) return;
    // The largest of a row is -inf or inf: there is no softmax.
    const double rest = most - most == 0 ? static_cast<double>(others) + (hits - 1) : NAN;
    const double top = static_cast<double>(most);
    c.frames[r] = {top, rest, scaled_exp<kExpDegree<T>>(static_cast<double>(x[c.blank]) - top)};
  }
};

// Blank u and label u.
struct Pair {
  Scaled blank, label;
};

// The states of a frame from those of the one before; left: label u - 1.
CENTROID_DEVICE Pair step_forward(const Pair& from, const Scaled& left, bool skip,
                                  const Pair& emit) {
  return {sum_times(from.blank, left, Scaled::zero(), emit.blank),
          sum_times(from.label, from.blank, skip ? left : Scaled::zero(), emit.label)};
}
// What reaches label u - 1 from pair u of the frame ahead.
CENTROID_DEVICE Scaled reach_left(const Pair& ahead, bool skip) {
  return skip ? ahead.blank + ahead.label : ahead.blank;
}
// The states of a frame from those of the one after, their emission included.
CENTROID_DEVICE Pair step_back(const Pair& ahead, const Scaled& right) {
  return {ahead.blank + ahead.label, ahead.label + right};
}

// The pair u of one item: its label, and what it is at both ends of the utterance.
template <typename T>
struct Place {
  const T* logit;  // of its class in frame 0; of the blank if u is not a label
  bool has_label, skip;
  Pair pair;

  CENTROID_DEVICE Place(const Ctc<T>& c, int64_t b, int u, int count, bool forward) {
    const int32_t* labels = c.targets + b * c.width;
    has_label = u < count;
    const int64_t label = has_label ? labels[u] : c.blank;
    skip = u > 0 && has_label && label != labels[u - 1];
    logit = c.logits + b * c.time * c.classes + label;
    // One frame outside: the first blank alone, or the last.
    pair = {u == (forward ? 0 : count) ? Scaled::one() : Scaled::zero(), Scaled::zero()};
  }
  CENTROID_DEVICE Pair emit(T x, double most, const Scaled& blank) const {
    return {blank,
            has_label ? scaled_exp<kExpDegree<T>>(static_cast<double>(x) - most) : Scaled::zero()};
  }
};

// `value` of the thread before (kUp) or after; zero at the end of the block. `edges`: two rows of a
// Scaled per warp, used by turns, so that one barrier is enough.
template <int kBlock, bool kUp>
CENTROID_DEVICE Scaled from_neighbour(const Scaled& value, Scaled* edges, int& turn) {
  constexpr int kWarps = kBlock / kWarp;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  Scaled got{kUp ? __shfl_up_sync(kFullMask, value.m, 1) : __shfl_down_sync(kFullMask, value.m, 1),
             kUp ? __shfl_up_sync(kFullMask, value.e, 1) : __shfl_down_sync(kFullMask, value.e, 1)};
  const int other = kUp ? warp - 1 : warp + 1;
  if constexpr (kWarps > 1) {
    Scaled* row = edges + turn * kWarps;
    turn ^= 1;
    if (lane == (kUp ? kWarp - 1 : 0)) row[warp] = value;
    __syncthreads();
    if (lane == (kUp ? 0 : kWarp - 1)) {
      got = other >= 0 && other < kWarps ? row[other] : Scaled::zero();
    }
  } else if (lane == (kUp ? 0 : kWarp - 1)) {
    got = Scaled::zero();
  }
  return got;
}

// Loss and Total from the sum over paths of products of e^(x - most), and the denominators' logs.
template <typename T>
CENTROID_DEVICE void finish(const Ctc<T>& c, int64_t b, const Scaled& paths, double denominators) {
  Total total{1 / paths.m, paths.e};
  T loss = T(NAN);
  if (denominators != denominators) {
    total.inverse = NAN;
  } else if (paths.m == 0) {
    total.inverse = 0;
    loss = kInf<T>;
  } else {
    const double log_p =
        log(paths.m) + static_cast<double>(paths.e) * 0.6931471805599453 - denominators;
    loss = static_cast<T>(log_p > 0 ? 0 : 0 - log_p);  // rounding may leave p a little above 1
  }
  c.losses[b] = loss;
  if (c.totals) c.totals[b] = total;
}

// The sum over an item's frames of log(1 + rest).
template <int kBlock, typename T>
CENTROID_DEVICE double log_denominators(const Ctc<T>& c, int64_t b, int time, double* shared) {
  double sum = 0;
  for (int t = threadIdx.x; t < time; t += kBlock) sum += log1p(c.frames[b * c.time + t].rest);
  return block_reduce<kBlock>(sum, Sum{}, shared);
}

template <int kBlock, bool kForward, typename T>
CENTROID_DEVICE Pair walk(const Ctc<T>& c, int64_t b, int time, int count, Scaled* edges,
                          int& turn) {
  const int u = threadIdx.x;
  const Place<T> place(c, b, u, count, kForward);
  const Frame* frames = c.frames + b * c.time;
  StoredScaled<T>* states = c.states && u <= count ? c.states_of(!kForward, b) + u : nullptr;
  const int64_t width = c.width + 1;
  const auto frame_of = [=](int i) { return int64_t{kForward ? i : time - 1 - i}; };

  T x[kAhead];
  double most[kAhead];
  Scaled blank[kAhead];
  const auto fetch = [&](int j, int i) {
    if (i >= time) return;
    const int64_t t = frame_of(i);
    x[j] = place.logit[t * c.classes];
    most[j] = frames[t].most;
    blank[j] = frames[t].blank;
  };
#pragma unroll
  for (int j = 0; j < kAhead; ++j) fetch(j, j);

  Pair pair = place.pair;
  for (int first = 0; first < time; first += kAhead) {
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = first + j;
      if (i >= time) break;
      const Pair emit = place.emit(x[j], most[j], blank[j]);
      fetch(j, i + kAhead);
      const Scaled near = kForward ? pair.label : reach_left(pair, place.skip);
      const Scaled got = from_neighbour<kBlock, kForward>(near, edges, turn);
      pair = kForward ? step_forward(pair, got, place.skip, emit) : step_back(pair, got);
      if (states) {
        StoredScaled<T>* row = states + frame_of(i) * 2 * width;
        row[0] = StoredScaled<T>::of(pair.blank);
        row[width] = StoredScaled<T>::of(pair.label);
      }
      if (!kForward) pair = {pair.blank * emit.blank, pair.label * emit.label};
    }
  }
  return pair;
}

template <typename T>
CENTROID_DEVICE bool refuse(const Ctc<T>& c, int64_t b) {
  if (c.good[b]) return false;
  if (blockIdx.y == 0 && threadIdx.x == 0) {
    c.losses[b] = T(NAN);
    if (c.totals) c.totals[b] = {0, 0};
  }
  return true;
}

// Targets of fewer than kBlock labels.
template <typename T, int kBlock>
__global__ void __launch_bounds__(kBlock, 1) walk_kernel(Ctc<T> c) {
  __shared__ Scaled edges[2 * kBlock / kWarp];
  __shared__ double sums[kBlock / kWarp];
  const int64_t b = blockIdx.x;
  if (refuse(c, b)) return;
  const int time = static_cast<int>(c.input_lengths[b]);
  const int count = static_cast<int>(c.target_lengths[b]);
  int turn = 0;
  if (blockIdx.y == 1) {
    walk<kBlock, false>(c, b, time, count, edges, turn);
    return;
  }
  const double denominators = log_denominators<kBlock>(c, b, time, sums);
  const Pair last = walk<kBlock, true>(c, b, time, count, edges, turn);
  const Scaled left = from_neighbour<kBlock, true>(last.label, edges, turn);
  if (threadIdx.x == count) finish(c, b, last.blank + left, denominators);
}

// Any number of labels: the states of two frames are in global memory.
template <typename T>
__global__ void __launch_bounds__(kFarThreads) far_walk_kernel(Ctc<T> c) {
  __shared__ double sums[kFarThreads / kWarp];
  const int64_t b = blockIdx.x, width = c.width + 1;
  const bool forward = blockIdx.y == 0;
  if (refuse(c, b)) return;
  const int time = static_cast<int>(c.input_lengths[b]);
  const int count = static_cast<int>(c.target_lengths[b]);
  Scaled* two = c.far + (b * 2 + blockIdx.y) * 4 * width;
  for (int u = threadIdx.x; u <= count; u += kFarThreads) {
    const Pair pair = Place<T>(c, b, u, count, forward).pair;
    two[u] = pair.blank;
    two[width + u] = pair.label;
  }
  const double denominators = log_denominators<kFarThreads>(c, b, time, sums);  // with a barrier
  for (int i = 0; i < time; ++i) {
    const int64_t t = forward ? i : time - 1 - i;
    const Scaled *from = two + i % 2 * 2 * width, *from_label = from + width;
    Scaled* to = two + (i + 1) % 2 * 2 * width;
    const Frame frame = c.frames[b * c.time + t];
    for (int u = threadIdx.x; u <= count; u += kFarThreads) {
      const Place<T> place(c, b, u, count, forward);
      const Pair emit = place.emit(place.logit[t * c.classes], frame.most, frame.blank);
      Pair pair{from[u], from_label[u]};
      if (forward) {
        const Scaled left = u > 0 ? from_label[u - 1] : Scaled::zero();
        pair = step_forward(pair, left, place.skip, emit);
      } else {
        Scaled right = Scaled::zero();
        if (u < count) {
          const bool skip = Place<T>(c, b, u + 1, count, forward).skip;
          right = reach_left({from[u + 1], from_label[u + 1]}, skip);
        }
        pair = step_back(pair, right);
      }
      if (c.states) {
        StoredScaled<T>* row = c.states_of(!forward, b) + t * 2 * width + u;
        row[0] = StoredScaled<T>::of(pair.blank);
        row[width] = StoredScaled<T>::of(pair.label);
      }
      to[u] = forward ? pair.blank : pair.blank * emit.blank;
      to[width + u] = forward ? pair.label : pair.label * emit.label;
    }
    __syncthreads();
  }
  if (!forward || threadIdx.x > 0) return;
  const Scaled *last = two + time % 2 * 2 * width, *last_label = last + width;
  finish(c, b, last[count] + (count > 0 ? last_label[count - 1] : Scaled::zero()), denominators);
}

// dlogits of a frame: y - posterior, 0 beyond the item's length and where it has none.
template <typename T>
struct GradientRow {
  Ctc<T> c;

  template <typename Group>
  CENTROID_DEVICE void operator()(Group& group, int64_t r) const {
    const int64_t b = r / c.time, t = r - b * c.time, n = c.classes;
    const Total total = c.totals[b];
    T* dx = c.dlogits + r * n;
    if (t >= c.input_lengths[b] || total.inverse == 0) return group.fill(dx, n, T(0));
    const T* x = c.logits + r * n;
    const T most = static_cast<T>(c.frames[r].most);
    const T inverse = static_cast<T>(1 / (1 + c.frames[r].rest));
    T v[Group::kValues];
    group.each_tile(n, [&](int64_t at) {
      group.load(x + at, n - at, -kInf<T>, v);
#pragma unroll
      for (int i = 0; i < Group::kValues; ++i) v[i] = math::exp(v[i] - most) * inverse;
      group.store(dx + at, n - at, v);
    });
    group.sync();  // the classes of the target are written again
    const auto write = [&](int64_t k, double posterior) {
      dx[k] = static_cast<T>(static_cast<double>(math::exp(x[k] - most) * inverse) - posterior);
    };
    const int64_t width = c.width + 1, row = t * 2 * width;
    const auto *alpha = c.states_of(0, b) + row, *beta = c.states_of(1, b) + row;
    const int count = static_cast<int>(c.target_lengths[b]);
    double blanks = 0;
    for (int u = group.lane; u <= count; u += Group::kGroup) {
      blanks += posterior(alpha[u].get(), beta[u].get(), total);
    }
    blanks = group.sum(blanks);
    if (group.lane == 0) write(c.blank, blanks);
    const int32_t *links = c.links + b * c.width, *labels = c.targets + b * c.width;
    for (int u = group.lane; u < count; u += Group::kGroup) {
      const int link = links[u];
      if (link >= 0) continue;
      double sum = posterior(alpha[width + u].get(), beta[width + u].get(), total);
      for (int next = ~link; next < count; next = links[next]) {
        sum += posterior(alpha[width + next].get(), beta[width + next].get(), total);
      }
      write(labels[u], sum);
    }
  }

  // alpha beta / p, at most 1 but for rounding.
  CENTROID_DEVICE static double posterior(const Scaled& alpha, const Scaled& beta,
                                          const Total& total) {
    const long long exponent = alpha.e + beta.e - total.exponent;
    const long long e = exponent < -1000 ? -1000 : exponent > 1000 ? 1000 : exponent;
    return alpha.m * beta.m * total.inverse * __longlong_as_double((1023 + e) << 52);
  }
};

// Memory for n elements of a type that is no dtype.
template <typename S>
struct Scratch {
  Tensor memory;
  S* data = nullptr;
  Scratch(int64_t n, Device device) {
    static_assert(sizeof(S) % 8 == 0);
    if (n == 0) return;
    memory = empty({n * static_cast<int64_t>(sizeof(S) / 8)}, DType::i64, device);
    data = reinterpret_cast<S*>(memory.data<int64_t>());
  }
};

template <typename T>
void start_walk(const Ctc<T>& c) {
  const dim3 grid(static_cast<unsigned>(c.batch), c.dlogits ? 2 : 1);
  if (c.width < 32) {
    launch(walk_kernel<T, 32>, grid, 32, 0, c);
  } else if (c.width < 128) {
    launch(walk_kernel<T, 128>, grid, 128, 0, c);
  } else if (c.width < 512) {
    launch(walk_kernel<T, 512>, grid, 512, 0, c);
  } else {
    launch(far_walk_kernel<T>, grid, kFarThreads, 0, c);
  }
}

template <typename T>
void run(Ctc<T> c, Device device) {
  const int64_t width = c.width + 1;
  const bool gradient = c.dlogits != nullptr;
  const Tensor good = empty({c.batch}, DType::i32, device);
  const Tensor links = empty({gradient ? c.batch * c.width : 0}, DType::i32, device);
  const Scratch<StoredScaled<T>> states(gradient ? 4 * c.batch * c.time * width : 0, device);
  const Scratch<Total> totals(gradient ? c.batch : 0, device);
  const Scratch<Frame> frames(c.batch * c.time, device);
  const Scratch<Scaled> far(c.width < 512 ? 0 : 8 * c.batch * width, device);
  c.good = good.data<int32_t>();
  c.links = gradient ? links.data<int32_t>() : nullptr;
  c.states = states.data;
  c.totals = totals.data;
  c.frames = frames.data;
  c.far = far.data;

  const auto name = [](const char* text) { return reinterpret_cast<unsigned long long>(text); };
  launch(labels_kernel<T>, static_cast<unsigned>(c.batch), kThreads, 0, c, fault_record(),
         name("ctc"), name("ctc: a label is the blank"));
  const int64_t rows = c.batch * c.time;
  const bool wide = wide_rows<T>(c.classes, {c.logits, c.dlogits});
  for_rows<T>(rows, c.classes, wide, FrameRow<T>{c});
  start_walk(c);
  if (gradient) for_rows<T>(rows, c.classes, wide, GradientRow<T>{c});
}

}  // namespace

void ctc(const Tensor& logits, const Tensor& targets, const Tensor& input_lengths,
         const Tensor& target_lengths, int64_t blank, const Tensor& losses, const Tensor& dlogits) {
  dispatch_float(logits.dtype(), "ctc", [&]<typename T>() {
    Ctc<T> c{};
    c.logits = logits.data<T>();
    c.targets = targets.data<int32_t>();
    c.input_lengths = input_lengths.data<int64_t>();
    c.target_lengths = target_lengths.data<int64_t>();
    c.batch = logits.size(0), c.time = logits.size(1), c.classes = logits.size(2);
    c.width = targets.size(1), c.blank = blank;
    c.losses = losses.data<T>(), c.dlogits = data_or_null<T>(dlogits);
    run(c, logits.device());
  });
}

}  // namespace centroid::cuda
