// Recording. A differentiable operation computes its result and calls `record`, which makes a Node:
// edges to where its inputs came from, and a function from the gradient of the output to those of
// the inputs. engine.cpp walks them.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <limits>

#include "autograd/node.h"

namespace centroid {
namespace {

std::atomic<uint64_t> g_next_seq{1};
thread_local bool t_grad_enabled = true;
thread_local bool t_skipped_recording = false;

std::atomic<bool>& check_nan_flag() {
  static std::atomic<bool> flag = [] {
    const char* value = std::getenv("CENTROID_CHECK_NAN");
    return value && *value && std::string(value) != "0";
  }();
  return flag;
}

}  // namespace

bool grad_enabled() { return t_grad_enabled; }

NoGrad::NoGrad(bool off) : previous_(t_grad_enabled) { t_grad_enabled = !off; }
NoGrad::~NoGrad() { t_grad_enabled = previous_; }

bool check_nan() { return check_nan_flag(); }
void set_check_nan(bool on) { check_nan_flag() = on; }

bool& detail::skipped_recording() { return t_skipped_recording; }

bool detail::is_finite(const Tensor& x) {
  const bool computable = x.defined() && (x.dtype() == DType::f64 || x.dtype() == DType::f32);
  return !computable || !raw::has_nonfinite(x);
}

namespace {

// A value of -inf is right for the logarithm of nothing: a row of attention without keys.
bool is_forward_value(const Tensor& x) {
  if (detail::is_finite(x)) return true;
  return raw::max(x).item() < std::numeric_limits<double>::infinity();  // NaN is not
}

}  // namespace

Node::~Node() {
  // A saved value may hold the node of an input: its last owner must be an edge, so edges go last.
  backward = nullptr;
  std::vector<std::shared_ptr<Node>> doomed;
  const auto take_edges = [&](Node& node) {
    for (Edge& edge : node.edges) {
      if (edge.node) doomed.push_back(std::move(edge.node));
    }
  };
  take_edges(*this);
  while (!doomed.empty()) {
    const std::shared_ptr<Node> node = std::move(doomed.back());
    doomed.pop_back();
    if (node.use_count() > 1) continue;
    node->backward = nullptr;
    take_edges(*node);
  }
}

Saved::Saved(const Tensor& value) {
  if (!value.defined()) return;
  value_ = value.detach();
  version_ = value.version();
}

const Tensor& Saved::get() const {
  CENTROID_CHECK(!value_.defined() || value_.version() == version_, "a saved value of shape ",
                 value_.shape(), " was changed in place after the forward: expected version ",
                 version_, ", got ", value_.version(),
                 " (change a clone, or change it after backward)");
  return value_;
}

bool needs_grad(const Tensor& x) { return x.defined() && (x.requires_grad() || x.grad_fn()); }

bool will_record(const std::vector<Tensor>& inputs) {
  return t_grad_enabled && std::any_of(inputs.begin(), inputs.end(), needs_grad);
}

Tensor record(const char* name, const Tensor& y, const std::vector<Tensor>& inputs,
              Backward1 backward) {
  return record(name, std::vector<Tensor>{y}, inputs,
                [f = std::move(backward)](const std::vector<Tensor>& dys, const Needs&) {
                  return f(dys[0]);
                })[0];
}

Tensor record(const char* name, const Tensor& y, const std::vector<Tensor>& inputs,
              Backward1Needs backward) {
  return record(name, std::vector<Tensor>{y}, inputs,
                [f = std::move(backward)](const std::vector<Tensor>& dys, const Needs& needs) {
                  return f(dys[0], needs);
                })[0];
}

std::vector<Tensor> record(const char* name, const std::vector<Tensor>& ys,
                           const std::vector<Tensor>& inputs, BackwardN backward) {
  for (size_t i = 0; check_nan() && i < ys.size(); ++i) {
    CENTROID_CHECK(is_forward_value(ys[i]), name, ": forward: output ", i, " of shape ",
                   ys[i].shape(), ": expected finite values (or -inf), got NaN or Inf");
  }
  if (will_record(inputs)) return detail::attach(name, ys, inputs, std::move(backward));
  if (!t_grad_enabled && std::any_of(inputs.begin(), inputs.end(), needs_grad)) {
    t_skipped_recording = true;
  }
  std::vector<Tensor> results = ys;
  for (Tensor& y : results) {
    if (needs_grad(y)) y = y.detach();  // a raw operation may have returned its argument
  }
  return results;
}

std::vector<Tensor> detail::attach(const char* name, const std::vector<Tensor>& ys,
                                   const std::vector<Tensor>& inputs, BackwardN backward) {
  auto node = std::make_shared<Node>();
  node->name = name;
  node->seq = g_next_seq++;
  node->backward = std::move(backward);
  for (const Tensor& x : inputs) {
    Edge& edge = node->edges.emplace_back();
    if (!x.defined()) continue;
    edge.node = x.grad_fn();
    edge.index = x.impl().grad_index;
    if (!edge.node && x.requires_grad()) edge.leaf = x.shared_impl();
    edge.shape = x.shape();
    edge.dtype = x.dtype();
  }
  std::vector<Tensor> results;
  for (const Tensor& y : ys) {
    Tensor result = y.defined() ? y.detach() : y;
    node->output_shapes.push_back(y.defined() ? y.shape() : Shape());
    if (y.defined() && is_float(y.dtype())) {
      node->output_dtype = y.dtype();
      node->output_device = y.device();
      result.impl().grad_fn = node;
      result.impl().grad_index = static_cast<int>(results.size());
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace centroid
