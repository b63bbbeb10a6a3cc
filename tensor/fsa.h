#pragma once
// Weighted finite-state acceptors whose arcs each take one frame: what raw::forward_backward sums
// over.
#include <vector>

#include "tensor/tensor.h"

namespace centroid {

/// A step from state `from` to state `to` that emits class `label`, at a logarithmic weight.
struct FsaArc {
  int32_t from = 0, to = 0, label = 0;
  double weight = 0;
};

/// An acceptor on the host. Weights are natural logarithms; -inf is an absent one.
struct Fsa {
  std::vector<FsaArc> arcs;
  std::vector<double> initial;  ///< (S) of beginning in a state
  std::vector<double> final;    ///< (S) of ending in a state
  /// (S) where a jump of a leaky acceptor leads (raw::forward_backward); empty for one that never
  /// leaks.
  std::vector<double> leak;

  int64_t states() const { return static_cast<int64_t>(initial.size()); }
  int64_t add_state(double initial_weight, double final_weight);
};

/// Acceptors as a kernel reads them: one after the other, states numbered from 0 in each, and the
/// arcs in three orders, so that no sum has to be scattered.
struct FsaBatch {
  /// Arcs with one key after those with a lower one, else in the order of Fsa::arcs.
  struct Arcs {
    Tensor offsets;          ///< (keys + 1) i32: where the arcs of each key begin
    Tensor from, to, label;  ///< (A) i32
    Tensor weight;           ///< (A) f64
  };
  int64_t count = 0;        ///< G
  int64_t classes = 0;      ///< V
  int64_t most_states = 0;  ///< of one acceptor
  bool leaks = false;       ///< whether all of them may leak
  Tensor state_offsets;     ///< (G + 1) i32: where the states of each acceptor begin
  Arcs by_to, by_from;      ///< by state, counted over all acceptors: S + 1 offsets
  Arcs by_label;            ///< by g * classes + label: G * classes + 1 offsets; for devices only
  Tensor initial, final;    ///< (S) f64
  Tensor leak;              ///< (S) f64; undefined unless `leaks`
};

/// Throws, naming the acceptor, for arcs between states that are not there, classes outside of [0,
/// classes), weights that are NaN or +inf, vectors of another length, and no acceptor at all.
FsaBatch pack(const std::vector<const Fsa*>& acceptors, int64_t classes,
              Device device = default_device());

}  // namespace centroid
