#include "nn/lfmmi_graph.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <queue>
#include <tuple>

#include "tensor/error.h"

namespace centroid::nn {

namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr int64_t kMostArcs = 5'000'000;

int32_t first_class(Topology topology, int32_t label) {
  return topology == Topology::two_state ? 2 * label - 1 : label;
}
int32_t further_class(Topology topology, int32_t label) {
  return topology == Topology::two_state ? 2 * label : label;
}

// Numbers states by what they stand for, and remembers which are still to be visited.
template <typename Key>
class States {
 public:
  explicit States(Fsa& fsa) : fsa_(fsa) {}
  int32_t operator()(const Key& key) {
    const auto [it, is_new] = numbers_.try_emplace(key, static_cast<int32_t>(fsa_.states()));
    if (is_new) {
      fsa_.add_state(kNever, kNever);
      keys_.push_back(key);
    }
    return it->second;
  }
  /// The next state to visit, which is `state` of `key`; false when all have been.
  bool next(int32_t& state, Key& key) {
    if (visited_ == keys_.size()) return false;
    state = static_cast<int32_t>(visited_);
    key = keys_[visited_++];
    return true;
  }

 private:
  Fsa& fsa_;
  std::map<Key, int32_t> numbers_;
  std::vector<Key> keys_;
  size_t visited_ = 0;
};

// The arcs of each state, as indices.
std::vector<std::vector<size_t>> arcs_from(const Fsa& fsa) {
  std::vector<std::vector<size_t>> result(fsa.states());
  for (size_t i = 0; i < fsa.arcs.size(); ++i) {
    if (fsa.arcs[i].weight > kNever) result[fsa.arcs[i].from].push_back(i);
  }
  return result;
}

}  // namespace

Topology topology_from(const std::string& name) {
  for (Topology t : {Topology::ctc, Topology::one_state, Topology::two_state}) {
    if (name_of(t) == name) return t;
  }
  throw Error(concat("topology: expected ctc, one-state or two-state, got '", name, "'"));
}

std::string name_of(Topology topology) {
  switch (topology) {
    case Topology::ctc: return "ctc";
    case Topology::one_state: return "one-state";
    case Topology::two_state: return "two-state";
  }
  return "";
}

int64_t model_outputs(Topology topology, int64_t symbols) {
  return topology == Topology::two_state ? 2 * symbols - 1 : symbols;
}

Transcript transcript(const std::vector<int32_t>& labels) {
  if (labels.empty()) return {};
  return {{{labels, 0}}};
}

Fsa label_acceptor(const Ngram& ngram) {
  Fsa fsa;
  for (int32_t state = 0; state < ngram.states(); ++state) {
    fsa.add_state(state == ngram.start() ? 0 : kNever, ngram.log_end(state));
    for (int32_t label = 1; label < ngram.symbols(); ++label) {
      const double weight = ngram.log_prob(state, label);
      if (weight > kNever) fsa.arcs.push_back({state, ngram.next(state, label), label, weight});
    }
  }
  return fsa;
}

Fsa label_acceptor(const Transcript& transcript, const Ngram& ngram) {
  // A place in the transcript (stretch, alternative, labels of it already said) and the n-gram's
  // state there. Between stretches the alternative is 0.
  using Key = std::tuple<size_t, size_t, size_t, int32_t>;
  Fsa fsa;
  States<Key> states(fsa);
  fsa.initial[states({0, 0, 0, ngram.start()})] = 0;
  const auto say = [&](int32_t from, size_t stretch, size_t which, size_t said, int32_t state) {
    const Alternative& way = transcript[stretch][which];
    CENTROID_CHECK(!way.labels.empty(), "lfmmi: an alternative without labels, stretch ", stretch);
    const int32_t label = way.labels[said];
    CENTROID_CHECK(label > 0 && label < ngram.symbols(), "lfmmi: label ", label,
                   ", expected one in [1, ", ngram.symbols(), ")");
    const double weight = ngram.log_prob(state, label) + (said == 0 ? way.log_prob : 0);
    if (!(weight > kNever)) return;
    const int32_t after = ngram.next(state, label);
    const bool whole = said + 1 == way.labels.size();
    const int32_t to =
        whole ? states({stretch + 1, 0, 0, after}) : states({stretch, which, said + 1, after});
    fsa.arcs.push_back({from, to, label, weight});
  };
  int32_t number = 0;
  Key key;
  while (states.next(number, key)) {
    const auto [stretch, which, said, state] = key;
    if (said > 0) {
      say(number, stretch, which, said, state);
    } else if (stretch == transcript.size()) {
      fsa.final[number] = ngram.log_end(state);
    } else {
      for (size_t i = 0; i < transcript[stretch].size(); ++i) say(number, stretch, i, 0, state);
    }
  }
  return fsa;
}

// A state is a state of `labels` and the label whose frames are being taken: kSilence for class 0,
// kNothing before the first frame.
FrameGraph frame_graph(const Fsa& labels, Topology topology, double silence) {
  CENTROID_CHECK(silence >= 0 && silence < 1, "lfmmi: silence: expected a probability in [0, 1), ",
                 "got ", silence);
  constexpr int32_t kSilence = 0, kNothing = -1;
  const bool ctc = topology == Topology::ctc;
  const double enter = ctc ? 0 : std::log(silence), pass = ctc ? 0 : std::log(1 - silence);
  using Key = std::pair<int32_t, int32_t>;
  FrameGraph graph;
  States<Key> states(graph.fsa);
  const auto out = arcs_from(labels);
  for (int32_t s = 0; s < labels.states(); ++s) {
    if (labels.initial[s] > kNever) graph.fsa.initial[states({s, kNothing})] = labels.initial[s];
  }
  const auto add = [&](int32_t from, const Key& to, int32_t label, double weight, int32_t begins) {
    graph.fsa.arcs.push_back({from, states(to), label, weight});
    graph.begins.push_back(begins);
  };
  int32_t number = 0;
  Key key;
  while (states.next(number, key)) {
    const auto [state, last] = key;
    const double leave = last == kSilence ? 0 : pass;
    graph.fsa.final[number] = labels.final[state] + leave;
    if (last == kSilence) add(number, key, 0, 0, 0);
    if (last > 0) add(number, key, further_class(topology, last), 0, 0);
    if (last != kSilence && enter > kNever) add(number, {state, kSilence}, 0, enter, 0);
    for (size_t i : out[state]) {
      const FsaArc& arc = labels.arcs[i];
      if (ctc && arc.label == last) continue;  // would be read as one label
      add(number, {arc.to, arc.label}, first_class(topology, arc.label), arc.weight + leave,
          arc.label);
    }
    CENTROID_CHECK(static_cast<int64_t>(graph.fsa.arcs.size()) <= kMostArcs,
                   "lfmmi: a graph of more than ", kMostArcs,
                   " arcs (fewer --ngram-states, a lower ",
                   "--ngram-order, or smaller units: phones or characters)");
  }
  std::vector<size_t> order(graph.begins.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return graph.fsa.arcs[a].to < graph.fsa.arcs[b].to; });
  FrameGraph sorted{{{}, graph.fsa.initial, graph.fsa.final, {}}, {}};
  for (size_t i : order) {
    sorted.fsa.arcs.push_back(graph.fsa.arcs[i]);
    sorted.begins.push_back(graph.begins[i]);
  }
  return sorted;
}

int64_t min_frames(const Fsa& fsa) {
  const auto out = arcs_from(fsa);
  std::vector<int64_t> distance(fsa.states(), -1);
  std::queue<int64_t> next;
  for (int64_t s = 0; s < fsa.states(); ++s) {
    if (fsa.initial[s] > kNever) distance[s] = 0, next.push(s);
  }
  for (; !next.empty(); next.pop()) {
    const int64_t s = next.front();
    if (fsa.final[s] > kNever) return distance[s];
    for (size_t i : out[s]) {
      const int32_t to = fsa.arcs[i].to;
      if (distance[to] < 0) distance[to] = distance[s] + 1, next.push(to);
    }
  }
  return -1;
}

std::vector<double> mean_occupancy(const Fsa& fsa) {
  constexpr int kFrames = 100;
  constexpr double kLeast = -20;
  const int64_t states = fsa.states();
  const auto linear = [](const std::vector<double>& logs) {
    std::vector<double> values;
    for (double w : logs) values.push_back(std::exp(w));
    return values;
  };
  std::vector<double> start = linear(fsa.initial), end = linear(fsa.final), total = end;
  std::vector<double> weight(fsa.arcs.size());
  for (size_t i = 0; i < fsa.arcs.size(); ++i) {
    weight[i] = std::exp(fsa.arcs[i].weight);
    total[fsa.arcs[i].from] += weight[i];
  }
  const double starts = std::accumulate(start.begin(), start.end(), 0.0);
  for (double& p : start) p /= starts;
  std::vector<double> now = start, sum(states);
  for (int frame = 0; frame < kFrames; ++frame) {
    std::vector<double> after(states);
    double ended = 0;
    for (int64_t s = 0; s < states; ++s) {
      ended += now[s] * (total[s] > 0 ? end[s] / total[s] : 1);
    }
    for (size_t i = 0; i < fsa.arcs.size(); ++i) {
      const FsaArc& arc = fsa.arcs[i];
      if (weight[i] > 0) after[arc.to] += now[arc.from] * weight[i] / total[arc.from];
    }
    for (int64_t s = 0; s < states; ++s) {
      after[s] += ended * start[s];
      sum[s] += after[s];
    }
    now = std::move(after);
  }
  std::vector<double> result;
  for (double p : sum) result.push_back(std::max(kLeast, std::log(p / kFrames)));
  return result;
}

BestPath best_path(const FrameGraph& graph, const float* logits, int64_t frames, int64_t classes,
                   double scale) {
  const Fsa& fsa = graph.fsa;
  const int64_t states = fsa.states();
  if (frames == 0 || states == 0) return {};
  std::vector<double> score = fsa.initial, next(states), emit(classes);
  std::vector<int32_t> came(frames * states, -1);  // by which arc
  for (int64_t t = 0; t < frames; ++t) {
    for (int64_t k = 0; k < classes; ++k) {
      const float x = logits[t * classes + k];
      CENTROID_CHECK(!std::isnan(x), "best_path: the logit of class ", k, " at frame ", t,
                     " is NaN");
      emit[k] = scale * static_cast<double>(x);
    }
    std::fill(next.begin(), next.end(), kNever);
    int32_t* by = came.data() + t * states;
    for (size_t i = 0; i < fsa.arcs.size(); ++i) {
      const FsaArc& arc = fsa.arcs[i];
      const double value = score[arc.from] + arc.weight + emit[arc.label];
      if (value > next[arc.to]) next[arc.to] = value, by[arc.to] = static_cast<int32_t>(i);
    }
    std::swap(score, next);
  }
  for (int64_t s = 0; s < states; ++s) next[s] = score[s] + fsa.final[s];
  const bool ends = std::any_of(next.begin(), next.end(), [](double x) { return x > kNever; });
  const std::vector<double>& last = ends ? next : score;
  int64_t state = std::max_element(last.begin(), last.end()) - last.begin();
  BestPath path{{}, last[state]};
  std::vector<LabelSpan>& found = path.labels;
  int64_t end = -1;  // one past the last frame of the label whose beginning is sought
  for (int64_t t = frames - 1; t >= 0; --t) {
    const int32_t i = came[t * states + state];
    if (i < 0) return {{}, kNever};  // every class of a frame is impossible
    if (fsa.arcs[i].label == 0) {
      end = -1;
    } else if (end < 0) {
      end = t + 1;
    }
    if (graph.begins[i] > 0) {
      found.push_back({graph.begins[i], t, end});
      end = -1;
    }
    state = fsa.arcs[i].from;
  }
  std::reverse(found.begin(), found.end());
  return path;
}

}  // namespace centroid::nn
