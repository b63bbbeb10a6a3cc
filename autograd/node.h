#pragma once
// The tape: what a differentiable operation leaves behind, and the engine that walks it backwards.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tensor/ops.h"
#include "tensor/tensor.h"

namespace centroid {

/// Gradients of an operation's inputs, in order; an undefined one means zero.
using Grads = std::vector<Tensor>;
/// For each input, whether its gradient is wanted: work for the others can be skipped.
using Needs = std::vector<bool>;
using Backward1 = std::function<Grads(const Tensor& dy)>;
using Backward1Needs = std::function<Grads(const Tensor& dy, const Needs& needs)>;
using BackwardN = std::function<Grads(const std::vector<Tensor>& dys, const Needs& needs)>;

/// Where the gradient of an input goes: to output `index` of the operation that made it, or to a
/// leaf.
struct Edge {
  std::shared_ptr<Node> node;
  int index = 0;
  std::shared_ptr<TensorImpl> leaf;
  Shape shape;  // of the input: what a gradient is checked against
  DType dtype = DType::f32;
  bool needed() const { return node || leaf; }
};

/// One recorded operation. Holds edges to its inputs, not the inputs: what backward needs is
/// captured by `backward` as `Saved` values and freed with it.
struct Node {
  const char* name = "";
  uint64_t seq = 0;  // creation number: inputs always have smaller ones, so descending order is a
                     // topological order
  std::vector<Edge> edges;
  std::vector<Shape> output_shapes;
  DType output_dtype = DType::f32;
  Device output_device;
  BackwardN backward;  // empty once run without retain_graph
  Node() = default;
  Node(const Node&) = delete;
  ~Node();  // iterative: a chain of a million nodes must not overflow the stack
};

/// A value kept for backward: data without history. `get` throws when the data were changed in
/// place since they were saved.
class Saved {
 public:
  Saved() = default;
  Saved(const Tensor& value);  // NOLINT: `[y = Saved(y)]` and implicit use both read well
  const Tensor& get() const;

 private:
  Tensor value_;
  uint64_t version_ = 0;
};

/// `value`, if some gradient will need it: what is not saved is freed early.
inline Saved saved_if(bool wanted, const Tensor& value) { return wanted ? Saved(value) : Saved(); }

/// Whether gradients flow through `x`: it has a history, or is a leaf that requires a gradient.
bool needs_grad(const Tensor& x);

/// Whether `record` would record an operation with these inputs.
bool will_record(const std::vector<Tensor>& inputs);

/// Gives `y` a history: it was made from `inputs`, and `backward` turns the gradient of `y` into
/// those of the inputs. Returns the data of `y` without a history when no input needs a gradient or
/// recording is off. `y` itself is never changed: the result is a new handle to its data.
Tensor record(const char* name, const Tensor& y, const std::vector<Tensor>& inputs,
              Backward1 backward);
/// The form with a mask of the inputs that need a gradient.
Tensor record(const char* name, const Tensor& y, const std::vector<Tensor>& inputs,
              Backward1Needs backward);
/// The general form: several outputs, and the mask. Undefined entries of `dys` mean zero. Outputs
/// that are not float (indices) get no history.
std::vector<Tensor> record(const char* name, const std::vector<Tensor>& ys,
                           const std::vector<Tensor>& inputs, BackwardN backward);

/// Runs the tape from `y`. `dy` defaults to 1 for a one-element `y`. Gradients of leaves accumulate
/// in `grad()`, all of them after the last operation has run: when an Error is thrown, no leaf has
/// changed. Unless `retain_graph`, saved values are freed on the way and a second backward throws.
/// Errors raised inside an operation's backward name the operation.
void backward(const Tensor& y, const Tensor& dy = {}, bool retain_graph = false);

/// To be called by a backward function that has recorded more operations, `ys` among their results:
/// the running backward goes on through them, with `dys` as the gradients of `ys` (undefined:
/// zero). This is how `recompute` splices the second run's tape in; throws outside of a backward.
void continue_backward(const std::vector<Tensor>& ys, const std::vector<Tensor>& dys);

/// Calls `hook(gradient)` once the complete gradient of leaf `x` in one backward is known, just
/// before it is accumulated; a defined return value replaces it. Returns nothing to remove: hooks
/// live as long as the leaf.
void add_hook(const Tensor& x, std::function<Tensor(const Tensor&)> hook);

/// Whether operations are recorded on this thread.
bool grad_enabled();

/// Switches recording off (or on again) until destroyed.
class NoGrad {
 public:
  explicit NoGrad(bool off = true);
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;

 private:
  bool previous_;
};

/// Whether every recorded operation's outputs and every gradient are checked for NaN and
/// infinities, which throw an Error naming the operation that made the first one (an output may be
/// -inf, the logarithm of nothing). Initially on if
/// the environment has CENTROID_CHECK_NAN=1. Costs a pass over all data.
bool check_nan();
void set_check_nan(bool on);

/// Writes the graph behind `y` in Graphviz' format: `dot -Tsvg graph.dot`.
void write_dot(const Tensor& y, const std::string& path);

namespace detail {

/// The second half of `record`: gives the outputs a history without asking whether an input needs
/// one.
std::vector<Tensor> attach(const char* name, const std::vector<Tensor>& ys,
                           const std::vector<Tensor>& inputs, BackwardN backward);

/// Set, on this thread, by every `record` that would have recorded had recording been on.
bool& skipped_recording();

/// False when a float tensor holds a NaN or an infinity; true for undefined and other tensors.
bool is_finite(const Tensor& x);

}  // namespace detail
}  // namespace centroid
