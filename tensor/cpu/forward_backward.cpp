// Sums over the paths of weighted acceptors; the recursions are derived in docs/lf-mmi.md.
//
// Two ways to the same numbers. `LogItem` keeps logarithms, as CTC does, and takes anything: in an
// acceptor of one transcript, the state from which alone the end can be reached may have less than
// e^-1000 of a frame's probability. `LaneGroup` keeps probabilities, divided by their sum in every
// frame: one multiplication and one addition per arc for four utterances at a time. A leak bounds
// how far apart the states of a frame can be, so that nothing of weight is lost when the acceptor's
// weights and the logits of each frame are within the limits below; that is checked first.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tensor/cpu/log_space.h"
#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// With weights, leak and logits (against the largest of the frame) so near to 1, a frame's sum is
// at least e^-200 of the frame before, no alpha of weight is below e^-250, no beta is above e^350.
constexpr double kMostWeight = 50, kMostSpread = 100;

// Arcs by one of their ends, of one acceptor.
struct Arcs {
  const int32_t* offsets;  // of its states, into the arcs of all acceptors
  const int32_t *from, *to, *label;
  const double* weight;
  int64_t begin, count;
  Arcs(const FsaBatch::Arcs& all, int64_t first_state, int64_t states)
      : offsets(all.offsets.data<int32_t>() + first_state),
        begin(offsets[0]),
        count(offsets[states] - offsets[0]) {
    from = all.from.data<int32_t>() + begin;
    to = all.to.data<int32_t>() + begin;
    label = all.label.data<int32_t>() + begin;
    weight = all.weight.data<double>() + begin;
  }
  // The arcs of state s are [first(s), first(s + 1)).
  int64_t first(int64_t s) const { return offsets[s] - begin; }
};

struct Acceptor {
  int64_t first_state, states;
  Arcs by_to, by_from;
  const double *initial, *final, *leak;
  Acceptor(const FsaBatch& fsa, int64_t g)
      : first_state(fsa.state_offsets.data<int32_t>()[g]),
        states(fsa.state_offsets.data<int32_t>()[g + 1] - first_state),
        by_to(fsa.by_to, first_state, states),
        by_from(fsa.by_from, first_state, states),
        initial(fsa.initial.data<double>() + first_state),
        final(fsa.final.data<double>() + first_state),
        leak(fsa.leaks ? fsa.leak.data<double>() + first_state : nullptr) {}
};

// One utterance: its logits (time, classes) and what is to be computed from them.
template <typename T>
struct Utterance {
  const T* logits;
  int64_t time, classes;
  double* log_z;
  T* posteriors;  // null if not asked for
};

double finite_log(double x) { return x < kLogZero ? kLogZero : x; }

// log of the sum of e^x.
double log_sum(const std::vector<double>& x) {
  double most = kLogZero, sum = 0;
#pragma omp simd reduction(max : most)
  for (size_t i = 0; i < x.size(); ++i) most = x[i] > most ? x[i] : most;
#pragma omp simd reduction(+ : sum)
  for (size_t i = 0; i < x.size(); ++i) sum += exp_nonpositive(x[i] - most);
  return most + std::log(sum);
}

inline double log_add(double a, double b) {
  const double most = a > b ? a : b;
  return most + log_from_one(exp_nonpositive(a - most) + exp_nonpositive(b - most));
}

// ---- logarithms -------------------------------------------------------------------------------

template <typename T>
class LogItem {
 public:
  LogItem(const Acceptor& acceptor, double leaky, const Utterance<T>& item)
      : a_(acceptor), log_leaky_(std::log(leaky)), leaks_(leaky > 0), x_(item) {
    emit_.resize(item.classes);
    scores_.resize(a_.by_to.count);
    most_.resize(a_.states);
    row_.resize(a_.states);
  }
  double forward(bool keep);
  void backward(double log_z);

 private:
  void emissions(int64_t t);
  void sum_arcs(const Arcs& arcs, const int32_t* key, double* sums);
  double* alpha(int64_t t) { return alpha_.data() + t % rows_ * a_.states; }

  const Acceptor a_;
  double log_leaky_;
  bool leaks_;
  const Utterance<T>& x_;
  int64_t rows_ = 2;
  std::vector<double> alpha_;       // rows of states: what the arcs of a frame start from
  std::vector<double> emit_;        // (V): the logits of a frame
  std::vector<double> scores_;      // (A)
  std::vector<double> most_, row_;  // (S)
};

template <typename T>
void LogItem<T>::emissions(int64_t t) {
  for (int64_t k = 0; k < x_.classes; ++k) {
    emit_[k] = finite_log(static_cast<double>(x_.logits[t * x_.classes + k]));
  }
}

// sums[s] = log of the sum of e^scores over the arcs of state s, which `key` names for each arc.
template <typename T>
void LogItem<T>::sum_arcs(const Arcs& arcs, const int32_t* key, double* sums) {
  double* __restrict score = scores_.data();
  double* __restrict most = most_.data();
  for (int64_t s = 0; s < a_.states; ++s) {
    most[s] = kLogZero;
    for (int64_t i = arcs.first(s); i < arcs.first(s + 1); ++i) {
      most[s] = score[i] > most[s] ? score[i] : most[s];
    }
  }
#pragma omp simd
  for (int64_t i = 0; i < arcs.count; ++i) score[i] = exp_nonpositive(score[i] - most[key[i]]);
  for (int64_t s = 0; s < a_.states; ++s) {
    const int64_t begin = arcs.first(s), end = arcs.first(s + 1);
    double sum = begin == end ? 1 : 0;  // a state without arcs: the logarithm stays that of 0
    for (int64_t i = begin; i < end; ++i) sum += score[i];
    sums[s] = sum;
  }
  // A sum holds its largest term, e^0, but where that is the logarithm of 0.
#pragma omp simd
  for (int64_t s = 0; s < a_.states; ++s) {
    sums[s] = most[s] + log_from_one(sums[s] < 1 ? 1 : sums[s]);
  }
}

template <typename T>
double LogItem<T>::forward(bool keep) {
  const int64_t states = a_.states;
  rows_ = keep ? x_.time + 1 : 2;
  alpha_.resize(rows_ * states);
  for (int64_t s = 0; s < states; ++s) alpha(0)[s] = finite_log(a_.initial[s]);
  const Arcs& arcs = a_.by_to;
  for (int64_t t = 0; t < x_.time; ++t) {
    emissions(t);
    const double* __restrict from = alpha(t);
    const double* __restrict emit = emit_.data();
    double* __restrict score = scores_.data();
#pragma omp simd
    for (int64_t i = 0; i < arcs.count; ++i) {
      score[i] = from[arcs.from[i]] + (arcs.weight[i] + emit[arcs.label[i]]);
    }
    sum_arcs(arcs, arcs.to, alpha(t + 1));
    if (!leaks_ || t + 1 == x_.time) continue;
    row_.assign(alpha(t + 1), alpha(t + 1) + states);
    const double jump = log_sum(row_) + log_leaky_;
    for (int64_t s = 0; s < states; ++s) {
      alpha(t + 1)[s] = log_add(row_[s], finite_log(jump + a_.leak[s]));
    }
  }
  for (int64_t s = 0; s < states; ++s) row_[s] = alpha(x_.time)[s] + finite_log(a_.final[s]);
  return log_sum(row_);
}

template <typename T>
void LogItem<T>::backward(double log_z) {
  const int64_t states = a_.states;
  const Arcs& arcs = a_.by_from;
  std::vector<double> beta(states), posterior(x_.classes), share(arcs.count);
  for (int64_t s = 0; s < states; ++s) beta[s] = finite_log(a_.final[s]);
  for (int64_t t = x_.time - 1; t >= 0; --t) {
    emissions(t);
    std::fill(posterior.begin(), posterior.end(), 0.0);
    const double* __restrict from = alpha(t);
    double* __restrict score = scores_.data();
#pragma omp simd
    for (int64_t i = 0; i < arcs.count; ++i) {
      score[i] = arcs.weight[i] + emit_[arcs.label[i]] + beta[arcs.to[i]];
    }
#pragma omp simd
    for (int64_t i = 0; i < arcs.count; ++i) {
      share[i] = exp_nonpositive(from[arcs.from[i]] + score[i] - log_z);
    }
    for (int64_t i = 0; i < arcs.count; ++i) posterior[arcs.label[i]] += share[i];
    for (int64_t k = 0; k < x_.classes; ++k) {
      x_.posteriors[t * x_.classes + k] = static_cast<T>(posterior[k]);
    }
    sum_arcs(arcs, arcs.from, beta.data());
    if (!leaks_ || t == 0) continue;
    for (int64_t s = 0; s < states; ++s) row_[s] = beta[s] + finite_log(a_.leak[s]);
    const double jump = log_sum(row_) + log_leaky_;
    for (int64_t s = 0; s < states; ++s) beta[s] = log_add(beta[s], jump);
  }
}

// ---- probabilities, four utterances at a time
// ----------------------------------------------------

constexpr int kLanes = 4;
typedef double Lanes __attribute__((vector_size(kLanes * sizeof(double))));

// A leaky acceptor with weights as numbers instead of logarithms.
struct LinearAcceptor {
  Acceptor a;
  std::vector<double> weight_by_to, weight_by_from, initial, final, leak;
  std::vector<int32_t> used;  // classes on its arcs

  LinearAcceptor(const Acceptor& acceptor, double leaky, int64_t classes) : a(acceptor) {
    const auto linear = [](const double* logs, int64_t n, double factor = 1) {
      std::vector<double> values(n);
      for (int64_t i = 0; i < n; ++i) values[i] = factor * std::exp(logs[i]);
      return values;
    };
    weight_by_to = linear(a.by_to.weight, a.by_to.count);
    weight_by_from = linear(a.by_from.weight, a.by_from.count);
    initial = linear(a.initial, a.states);
    final = linear(a.final, a.states);
    leak = linear(a.leak, a.states, leaky);
    std::vector<char> seen(classes);
    for (int64_t i = 0; i < a.by_to.count; ++i) seen[a.by_to.label[i]] = 1;
    for (int64_t k = 0; k < classes; ++k) {
      if (seen[k]) used.push_back(static_cast<int32_t>(k));
    }
  }

  // Whether all weights are within the limits; a state may lack an initial or a final one.
  static bool tame(const Acceptor& a, double leaky) {
    const double log_leaky = std::log(leaky);
    const auto near = [](double w) { return std::fabs(w) <= kMostWeight; };
    bool all = leaky > 0 && a.states > 0;
    for (int64_t i = 0; all && i < a.by_to.count; ++i) all = near(a.by_to.weight[i]);
    for (int64_t s = 0; all && s < a.states; ++s) {
      all = near(a.leak[s] + log_leaky) && (near(a.initial[s]) || a.initial[s] == -kInf) &&
            (near(a.final[s]) || a.final[s] == -kInf);
    }
    return all;
  }
  // Whether the logits of every frame are.
  template <typename T>
  bool tame(const Utterance<T>& item) const {
    for (int64_t t = 0; t < item.time; ++t) {
      const T* x = item.logits + t * item.classes;
      T least = x[used[0]], most = least;
      for (int32_t k : used) least = std::min(least, x[k]), most = std::max(most, x[k]);
      if (!(most - least <= T(kMostSpread))) return false;
    }
    return true;
  }
};

template <typename T>
class LaneGroup {
 public:
  LaneGroup(const LinearAcceptor& acceptor, std::vector<Utterance<T>> items)
      : l_(acceptor), a_(acceptor.a), items_(std::move(items)) {
    for (const auto& item : items_) time_ = std::max(time_, item.time);
    emit_.resize(items_[0].classes);
    posterior_.resize(items_[0].classes);
    beta_.assign(a_.states, Lanes{});
    next_.resize(a_.states);
    inverse_.resize(time_);
  }
  // The log_z of every item, and -inf where there is no path; keeps what `backward` needs.
  void forward(bool keep);
  // The posteriors of every item that has a path.
  void backward();

 private:
  // Lanes in the logits' type: most of the memory.
  struct Stored {
    T lane[kLanes];
    Stored() = default;
    explicit Stored(const Lanes& x) {
      for (int i = 0; i < kLanes; ++i) lane[i] = static_cast<T>(x[i]);
    }
    void read(Lanes& x) const {
      for (int i = 0; i < kLanes; ++i) x[i] = static_cast<double>(lane[i]);
    }
  };

  void emissions(int64_t t);
  void finish(int lane, const std::vector<Lanes>& alpha);
  int count() const { return static_cast<int>(items_.size()); }

  const LinearAcceptor& l_;
  const Acceptor& a_;
  std::vector<Utterance<T>> items_;
  int64_t time_ = 0;                // of the longest
  Lanes log_z_{}, last_{};          // last: 1 / the sum over states at the end of alpha final
  double most_[kLanes] = {};        // the largest logit of the frame
  std::vector<Lanes> emit_;         // (V): e^(logit - most), 0 beyond an item's end
  std::vector<Lanes> inverse_;      // (time): 1 / the sum of the frame's alpha
  std::vector<Lanes> beta_, next_;  // (S)
  std::vector<Lanes> posterior_;    // (V)
  std::vector<Stored> alpha_;       // (time, S): what the arcs of a frame start from
};

template <typename T>
void LaneGroup<T>::emissions(int64_t t) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lane >= count() || t >= items_[lane].time) {
      for (int32_t k : l_.used) emit_[k][lane] = 0;
      continue;
    }
    const T* x = items_[lane].logits + t * items_[lane].classes;
    T most = x[l_.used[0]];
    for (int32_t k : l_.used) most = std::max(most, x[k]);
    most_[lane] = static_cast<double>(most);
    for (int32_t k : l_.used) {
      emit_[k][lane] = exp_nonpositive(static_cast<double>(x[k]) - most_[lane]);
    }
  }
}

template <typename T>
void LaneGroup<T>::finish(int lane, const std::vector<Lanes>& alpha) {
  double sum = 0;
  for (int64_t s = 0; s < a_.states; ++s) sum += alpha[s][lane] * l_.final[s];
  last_[lane] = sum > 0 ? 1 / sum : 0;
  *items_[lane].log_z = log_z_[lane] + std::log(sum);
}

template <typename T>
void LaneGroup<T>::forward(bool keep) {
  const int64_t states = a_.states;
  if (keep) alpha_.resize(time_ * states);
  std::vector<Lanes> from(states), to(states);
  for (int64_t s = 0; s < states; ++s) from[s] = Lanes{} + l_.initial[s];
  for (int lane = 0; lane < count(); ++lane) {
    if (items_[lane].time == 0) finish(lane, from);
  }
  const Arcs& arcs = a_.by_to;
  const double* weight = l_.weight_by_to.data();
  for (int64_t t = 0; t < time_; ++t) {
    emissions(t);
    Lanes total{};
    for (int64_t s = 0; s < states; ++s) {
      if (keep) alpha_[t * states + s] = Stored(from[s]);
      Lanes sum{};
      for (int64_t i = arcs.first(s); i < arcs.first(s + 1); ++i) {
        sum += weight[i] * emit_[arcs.label[i]] * from[arcs.from[i]];
      }
      to[s] = sum;
      total += sum;
    }
    const Lanes inverse = total > 0 ? 1 / total : Lanes{};
    inverse_[t] = inverse;
    for (int64_t s = 0; s < states; ++s) to[s] *= inverse;
    for (int lane = 0; lane < count(); ++lane) {
      if (t < items_[lane].time) log_z_[lane] += std::log(total[lane]) + most_[lane];
      if (t + 1 == items_[lane].time) finish(lane, to);
    }
    const Lanes sum = total * inverse;  // of `to`: 1, or 0 where no path has come so far
    for (int64_t s = 0; s < states; ++s) from[s] = to[s] + sum * l_.leak[s];
  }
}

template <typename T>
void LaneGroup<T>::backward() {
  const int64_t states = a_.states;
  const Arcs& arcs = a_.by_from;
  const double* weight = l_.weight_by_from.data();
  for (int64_t t = time_ - 1; t >= 0; --t) {
    emissions(t);
    for (int lane = 0; lane < count(); ++lane) {
      if (items_[lane].time != t + 1) continue;
      for (int64_t s = 0; s < states; ++s) beta_[s][lane] = l_.final[s] * last_[lane];
    }
    for (int32_t k : l_.used) emit_[k] *= inverse_[t], posterior_[k] = Lanes{};
    Lanes jump{};
    for (int64_t s = 0; s < states; ++s) {
      Lanes alpha;
      alpha_[t * states + s].read(alpha);
      Lanes sum{};
      for (int64_t i = arcs.first(s); i < arcs.first(s + 1); ++i) {
        const Lanes path = weight[i] * emit_[arcs.label[i]] * beta_[arcs.to[i]];
        sum += path;
        posterior_[arcs.label[i]] += alpha * path;
      }
      next_[s] = sum;
      jump += l_.leak[s] * sum;
    }
    for (int64_t s = 0; s < states; ++s) beta_[s] = next_[s] + jump;
    for (int lane = 0; lane < count(); ++lane) {
      if (t >= items_[lane].time || last_[lane] == 0) continue;
      T* row = items_[lane].posteriors + t * items_[lane].classes;
      for (int32_t k : l_.used) row[k] = static_cast<T>(posterior_[k][lane]);
    }
  }
}

// ---- which way an item goes
// ------------------------------------------------------------------------

template <typename T>
bool has_bad_logits(const Utterance<T>& item) {
  bool bad = false;
  for (int64_t i = 0; i < item.time * item.classes; ++i) bad |= !(item.logits[i] < T(kInf));
  return bad;
}

// NaN and +inf are no logits: the item's results are NaN.
template <typename T>
bool refuse(const Utterance<T>& item) {
  if (!has_bad_logits(item)) return false;
  *item.log_z = NAN;
  if (item.posteriors) {
    std::fill(item.posteriors, item.posteriors + item.time * item.classes, T(NAN));
  }
  return true;
}

template <typename T>
void by_logarithms(const Acceptor& acceptor, double leaky, const Utterance<T>& item) {
  LogItem<T> log_item(acceptor, leaky, item);
  const double log_z = log_item.forward(item.posteriors != nullptr);
  const bool path = log_z > 0.5 * kLogZero;
  *item.log_z = path ? log_z : -kInf;
  if (item.posteriors && path) log_item.backward(log_z);
}

template <typename T>
void by_lanes(const LinearAcceptor& acceptor, const std::vector<Utterance<T>>& items) {
  LaneGroup<T> group(acceptor, items);
  group.forward(items[0].posteriors != nullptr);
  if (items[0].posteriors) group.backward();
}

// The items of one leaky acceptor: in groups of four where they are tame, else one by one.
template <typename T>
void run_shared(const Acceptor& acceptor, double leaky, const std::vector<Utterance<T>>& items) {
  const int64_t batch = static_cast<int64_t>(items.size());
  const LinearAcceptor linear(acceptor, leaky, items[0].classes);
  std::vector<char> tame(batch), refused(batch);
  parallel_for(0, batch, 1, [&](int64_t b, int64_t) {
    refused[b] = refuse(items[b]);
    tame[b] = !refused[b] && !linear.used.empty() && linear.tame(items[b]);
  });
  std::vector<std::vector<Utterance<T>>> groups;
  bool open = false;  // the last group takes more
  for (int64_t b = 0; b < batch; ++b) {
    if (!tame[b]) continue;
    if (!open) groups.emplace_back();
    groups.back().push_back(items[b]);
    open = groups.back().size() < kLanes;
  }
  const int64_t tame_groups = static_cast<int64_t>(groups.size());
  for (int64_t b = 0; b < batch; ++b) {
    if (!tame[b] && !refused[b]) groups.push_back({items[b]});
  }
  parallel_for(0, static_cast<int64_t>(groups.size()), 1, [&](int64_t g, int64_t) {
    if (g < tame_groups) return by_lanes(linear, groups[g]);
    by_logarithms(acceptor, leaky, groups[g][0]);
  });
}

}  // namespace

void forward_backward(const Tensor& logits, const Tensor& lengths, const FsaBatch& fsa,
                      double leaky, const Tensor& log_z, const Tensor& posteriors) {
  const int64_t batch = logits.size(0), frames = logits.size(1), classes = logits.size(2);
  dispatch_float(logits.dtype(), "forward_backward", [&]<typename T>() {
    std::vector<Utterance<T>> items;
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t at = b * frames * classes;
      items.push_back({logits.data<T>() + at, lengths.data<int64_t>()[b], classes,
                       log_z.data<double>() + b,
                       posteriors.defined() ? posteriors.data<T>() + at : nullptr});
      if (posteriors.defined()) {
        std::fill(items[b].posteriors, items[b].posteriors + frames * classes, T(0));
      }
    }
    const Acceptor first(fsa, 0);
    if (fsa.count == 1 && LinearAcceptor::tame(first, leaky)) {
      return run_shared(first, leaky, items);
    }
    parallel_for(0, batch, 1, [&](int64_t b, int64_t) {
      if (refuse(items[b])) return;
      by_logarithms(fsa.count == 1 ? first : Acceptor(fsa, b), leaky, items[b]);
    });
  });
}

}  // namespace centroid::cpu
