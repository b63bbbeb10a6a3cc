#include "tensor/fsa.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/ops.h"

namespace centroid {

namespace {

void check_weights(const char* name, int64_t g, const std::vector<double>& weights,
                   int64_t states) {
  CENTROID_CHECK(static_cast<int64_t>(weights.size()) == states, "fsa: ", name, " of acceptor ", g,
                 ": expected one weight for each of ", states, " states, got ", weights.size());
  for (double w : weights) {
    CENTROID_CHECK(w < std::numeric_limits<double>::infinity(), "fsa: ", name, " of acceptor ", g,
                   ": expected logarithms below infinity, got ", w);
  }
}

void check(const Fsa& fsa, int64_t g, int64_t classes) {
  const int64_t states = fsa.states();
  check_weights("initial", g, fsa.initial, states);
  check_weights("final", g, fsa.final, states);
  if (!fsa.leak.empty()) check_weights("leak", g, fsa.leak, states);
  for (const FsaArc& arc : fsa.arcs) {
    CENTROID_CHECK(arc.from >= 0 && arc.from < states && arc.to >= 0 && arc.to < states,
                   "fsa: acceptor ", g, ": an arc from state ", arc.from, " to ", arc.to,
                   ", expected states in [0, ", states, ")");
    CENTROID_CHECK(arc.label >= 0 && arc.label < classes, "fsa: acceptor ", g, ": an arc of class ",
                   arc.label, ", expected one in [0, ", classes, ")");
    CENTROID_CHECK(arc.weight < std::numeric_limits<double>::infinity(), "fsa: acceptor ", g,
                   ": an arc with weight ", arc.weight, ", expected a logarithm below infinity");
  }
}

// Counting sort of all arcs; key(g, arc) is in [0, keys) and not lower for a later g.
template <typename Key>
FsaBatch::Arcs sorted(const std::vector<const Fsa*>& acceptors, int64_t keys, int64_t arcs,
                      Device device, const Key& key) {
  std::vector<int32_t> offsets(keys + 1), from(arcs), to(arcs), label(arcs);
  std::vector<double> weight(arcs);
  for (size_t g = 0; g < acceptors.size(); ++g) {
    for (const FsaArc& arc : acceptors[g]->arcs) ++offsets[key(g, arc) + 1];
  }
  for (int64_t k = 0; k < keys; ++k) offsets[k + 1] += offsets[k];
  std::vector<int32_t> next = offsets;
  for (size_t g = 0; g < acceptors.size(); ++g) {
    for (const FsaArc& arc : acceptors[g]->arcs) {
      const int32_t at = next[key(g, arc)]++;
      from[at] = arc.from, to[at] = arc.to, label[at] = arc.label, weight[at] = arc.weight;
    }
  }
  return {from_vector(offsets, {keys + 1}, device), from_vector(from, {arcs}, device),
          from_vector(to, {arcs}, device), from_vector(label, {arcs}, device),
          from_vector(weight, {arcs}, device)};
}

}  // namespace

int64_t Fsa::add_state(double initial_weight, double final_weight) {
  initial.push_back(initial_weight);
  final.push_back(final_weight);
  return states() - 1;
}

FsaBatch pack(const std::vector<const Fsa*>& acceptors, int64_t classes, Device device) {
  CENTROID_CHECK(!acceptors.empty(), "fsa: expected at least one acceptor, got none");
  FsaBatch batch;
  batch.count = static_cast<int64_t>(acceptors.size());
  batch.classes = classes;
  batch.leaks = true;
  std::vector<int32_t> state_offsets{0};
  std::vector<double> initial, final, leak;
  int64_t arcs = 0;
  for (size_t g = 0; g < acceptors.size(); ++g) {
    const Fsa& fsa = *acceptors[g];
    check(fsa, static_cast<int64_t>(g), classes);
    arcs += static_cast<int64_t>(fsa.arcs.size());
    initial.insert(initial.end(), fsa.initial.begin(), fsa.initial.end());
    final.insert(final.end(), fsa.final.begin(), fsa.final.end());
    leak.insert(leak.end(), fsa.leak.begin(), fsa.leak.end());
    batch.leaks = batch.leaks && !fsa.leak.empty();
    batch.most_states = std::max(batch.most_states, fsa.states());
    const int64_t end = state_offsets.back() + fsa.states();
    CENTROID_CHECK(std::max({end, arcs, batch.count * classes}) < int64_t{1} << 31,
                   "fsa: expected fewer than 2^31 states, arcs and classes in a batch");
    state_offsets.push_back(static_cast<int32_t>(end));
  }
  const int64_t states = state_offsets.back();
  batch.state_offsets = from_vector(state_offsets, {batch.count + 1}, device);
  batch.by_to = sorted(acceptors, states, arcs, device,
                       [&](size_t g, const FsaArc& arc) { return state_offsets[g] + arc.to; });
  batch.by_from = sorted(acceptors, states, arcs, device,
                         [&](size_t g, const FsaArc& arc) { return state_offsets[g] + arc.from; });
  if (device.kind != DeviceKind::cpu) {
    batch.by_label = sorted(
        acceptors, batch.count * classes, arcs, device,
        [&](size_t g, const FsaArc& arc) { return static_cast<int64_t>(g) * classes + arc.label; });
  }
  batch.initial = from_vector(initial, {states}, device);
  batch.final = from_vector(final, {states}, device);
  if (batch.leaks) batch.leak = from_vector(leak, {states}, device);
  return batch;
}

}  // namespace centroid
