// The engine: walks the tape that tape.cpp records from the last operation to the first, and hands
// each one's gradients on to where its inputs came from. docs/autodiff.md tells the story.
#include <algorithm>
#include <map>
#include <mutex>
#include <queue>
#include <unordered_map>

#include "autograd/node.h"
#include "tensor/trace.h"

namespace centroid {
namespace {

using Hook = std::function<Tensor(const Tensor&)>;

// Hooks sit beside the leaves, not in them: hardly any leaf has one. The weak keys order by owner,
// so an entry outlives its leaf harmlessly until the next `add_hook` sweeps it away.
struct HookTable {
  std::mutex mutex;
  std::map<std::weak_ptr<TensorImpl>, std::vector<Hook>, std::owner_less<>> hooks;

  std::vector<Hook> of(const std::shared_ptr<TensorImpl>& leaf) {
    std::lock_guard lock(mutex);
    const auto it = hooks.find(leaf);
    return it == hooks.end() ? std::vector<Hook>() : it->second;
  }
};

HookTable& hook_table() {
  static HookTable table;
  return table;
}

// Nobody but the caller, who holds `handles` handles, can see this buffer: writing into it is safe.
// A gradient may be anything an operation returned: dy itself, a view of it, a saved value.
bool sole_owner(const Tensor& x, long handles) {
  return x.shared_impl().use_count() == handles && x.impl().storage.use_count() == 1 &&
         !needs_grad(x);
}

bool exclusive(const Tensor& x, long handles) {
  return sole_owner(x, handles) && x.is_contiguous();
}

// Dimensions from the largest stride to the smallest: permuted so, a transposed tensor is
// contiguous again.
Dims memory_order(const Tensor& x) {
  Dims order;
  for (int d = 0; d < x.dim(); ++d) order.push_back(d);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return x.strides()[a] > x.strides()[b]; });
  return order;
}

// The sum keeps the memory layout of `total`, so that transposed gradients need no copies later.
void add_into(Tensor& total, Tensor dx) {
  if (!total.defined()) {
    total = std::move(dx);
    return;
  }
  const bool owner = sole_owner(total, 1);
  const Dims order = memory_order(total);
  const Tensor to = raw::permute(total, order), from = raw::permute(dx, order);
  if (owner && to.is_contiguous()) return raw::add_(to, from);
  Dims back = order;
  for (int d = 0; d < total.dim(); ++d) back[order[d]] = d;
  total = raw::permute(raw::add(to, from), back);
}

// Gradients of leaves are dense and share memory with nothing, so that optimisers and clipping may
// change them in place.
void accumulate_leaf(TensorImpl& leaf, Tensor dx) {
  if (leaf.grad) {
    const Tensor total(leaf.grad);
    if (exclusive(total, 2)) return raw::add_(total, dx);
    dx = raw::add(total, dx);
  }
  const bool dense = dx.impl().storage->bytes == dx.numel() * size_of(dx.dtype());
  leaf.grad = (dense && exclusive(dx, 1) ? dx : raw::clone(dx)).shared_impl();
}

void check_gradient(const Tensor& dx, const Edge& edge, size_t i) {
  CENTROID_CHECK(dx.shape() == edge.shape && dx.dtype() == edge.dtype, "gradient of input ", i,
                 ": expected ", edge.dtype, " ", edge.shape, ", got ", dx.dtype(), " ", dx.shape(),
                 dx.shape() == edge.shape ? "" : " (raw::sum_to undoes a broadcast)");
  CENTROID_CHECK(!check_nan() || detail::is_finite(dx), "gradient of input ", i, " of shape ",
                 dx.shape(), ": expected finite values, got NaN or Inf");
}

// One walk over the tape.
class Engine {
 public:
  explicit Engine(bool retain_graph) : retain_graph_(retain_graph), outer_(t_current) {
    t_current = this;
  }
  ~Engine() { t_current = outer_; }
  Engine(const Engine&) = delete;

  static Engine* current() { return t_current; }

  // Adds `dy` to the gradient of `y`, and the nodes behind `y` to those that will run.
  void seed(const Tensor& y, const Tensor& dy) {
    Edge edge;
    if (y.grad_fn()) {
      edge = {y.grad_fn(), y.impl().grad_index, nullptr, y.shape(), y.dtype()};
      collect(edge.node);
    } else if (y.requires_grad()) {
      edge.leaf = y.shared_impl();
    }
    deliver(edge, dy);
  }

  void run() {
    while (!queue_.empty()) {
      const std::shared_ptr<Node> node = queue_.top();
      queue_.pop();
      run_node(*node);
    }
    finish_leaves();
  }

 private:
  // Enters all nodes reachable from `root` into the queue, with an explicit stack.
  void collect(const std::shared_ptr<Node>& root) {
    std::vector<std::shared_ptr<Node>> stack{root};
    while (!stack.empty()) {
      const std::shared_ptr<Node> node = std::move(stack.back());
      stack.pop_back();
      if (!dys_.try_emplace(node.get(), node->output_shapes.size()).second) continue;
      CENTROID_CHECK(node->backward, node->name,
                     ": backward: the saved values were freed by an earlier backward ",
                     "(pass retain_graph = true to the first, or run the forward again)");
      queue_.push(node);
      for (const Edge& edge : node->edges) {
        if (edge.node) stack.push_back(edge.node);
      }
    }
  }

  void run_node(Node& node) {
    auto entry = dys_.extract(&node);
    std::vector<Tensor>& dys = entry.mapped();
    Grads dxs;
    const auto defined = [](const Tensor& t) { return t.defined(); };
    if (std::any_of(dys.begin(), dys.end(), defined)) {
      try {
        dxs = call_backward(node, dys);
      } catch (const std::exception& error) {
        throw Error(concat(node.name, ": backward: ", error.what()));
      }
    }
    // Freed before the gradients travel on, so that a buffer which nobody else holds can be reused.
    dys.clear();
    if (!retain_graph_) node.backward = nullptr;
    for (size_t i = 0; i < dxs.size(); ++i) deliver(node.edges[i], std::move(dxs[i]));
  }

  static Grads call_backward(const Node& node, const std::vector<Tensor>& dys) {
    Needs needs;
    for (const Edge& edge : node.edges) needs.push_back(edge.needed());
    Grads dxs = node.backward(dys, needs);
    CENTROID_CHECK(dxs.size() == needs.size(), "expected ", needs.size(),
                   " gradients, one per input, got ", dxs.size());
    for (size_t i = 0; i < dxs.size(); ++i) {
      if (needs[i] && dxs[i].defined()) check_gradient(dxs[i], node.edges[i], i);
    }
    return dxs;
  }

  // Contributions arrive in descending order of the nodes they come from: always the same order.
  void deliver(const Edge& edge, Tensor dx) {
    if (!dx.defined()) return;
    if (edge.node) {
      add_into(dys_.at(edge.node.get()).at(edge.index), std::move(dx));
    } else if (edge.leaf) {
      const auto [it, is_new] = leaf_slot_.try_emplace(edge.leaf.get(), leaves_.size());
      if (is_new) leaves_.push_back({edge.leaf, {}});
      add_into(leaves_[it->second].second, std::move(dx));
    }
  }

  void finish_leaves() {
    for (auto& [leaf, dx] : leaves_) {
      for (const Hook& hook : hook_table().of(leaf)) {
        Tensor replaced = hook(dx);
        if (!replaced.defined()) continue;
        CENTROID_CHECK(replaced.shape() == leaf->shape && replaced.dtype() == leaf->dtype,
                       "hook: expected a gradient ", leaf->dtype, " ", leaf->shape, ", got ",
                       replaced.dtype(), " ", replaced.shape());
        dx = replaced.detach();
      }
    }
    for (auto& [leaf, dx] : leaves_) accumulate_leaf(*leaf, std::move(dx));
  }

  struct EarlierNode {
    bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const {
      return a->seq < b->seq;
    }
  };
  static thread_local Engine* t_current;

  bool retain_graph_;
  Engine* outer_;
  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, EarlierNode>
      queue_;
  std::unordered_map<Node*, std::vector<Tensor>> dys_;  // of every node in the queue
  std::vector<std::pair<std::shared_ptr<TensorImpl>, Tensor>> leaves_;
  std::unordered_map<TensorImpl*, size_t> leaf_slot_;
};

thread_local Engine* Engine::t_current = nullptr;

}  // namespace

void backward(const Tensor& y, const Tensor& dy, bool retain_graph) {
  CENTROID_CHECK(needs_grad(y), "backward: y of shape ", y.shape(), " has no history ",
                 "(none of its inputs requires a gradient, or it was computed under NoGrad)");
  CENTROID_CHECK(dy.defined() || y.numel() == 1,
                 "backward: expected y of one element or a gradient dy, got y of shape ", y.shape(),
                 " (reduce it with sum or mean first, or pass dy)");
  const Tensor seed = dy.defined() ? dy.detach() : ones(y.shape(), y.dtype(), y.device());
  CENTROID_CHECK(seed.shape() == y.shape() && seed.dtype() == y.dtype(), "backward: dy: expected ",
                 y.dtype(), " ", y.shape(), ", got ", seed.dtype(), " ", seed.shape());
  CENTROID_CHECK(!check_nan() || detail::is_finite(seed), "backward: dy of shape ", seed.shape(),
                 ": expected finite values, got NaN or Inf");
  TracePhase phase("backward");
  NoGrad no_grad;
  Engine engine(retain_graph);
  engine.seed(y, seed);
  engine.run();
}

void continue_backward(const std::vector<Tensor>& ys, const std::vector<Tensor>& dys) {
  Engine* engine = Engine::current();
  CENTROID_CHECK(engine, "continue_backward: expected a running backward, got none");
  CENTROID_CHECK(ys.size() == dys.size(), "continue_backward: expected a gradient per result, ",
                 ys.size(), ", got ", dys.size());
  for (size_t i = 0; i < ys.size(); ++i) {
    if (!dys[i].defined() || !needs_grad(ys[i])) continue;
    CENTROID_CHECK(ys[i].shape() == dys[i].shape() && ys[i].dtype() == dys[i].dtype(),
                   "continue_backward: result ", i, ": expected a gradient ", ys[i].dtype(), " ",
                   ys[i].shape(), ", got ", dys[i].dtype(), " ", dys[i].shape());
    engine->seed(ys[i], dys[i]);
  }
}

void add_hook(const Tensor& x, std::function<Tensor(const Tensor&)> hook) {
  CENTROID_CHECK(x.requires_grad() && !x.grad_fn(),
                 "add_hook: expected a leaf that requires a gradient, got another tensor");
  HookTable& table = hook_table();
  std::lock_guard lock(table.mutex);
  std::erase_if(table.hooks, [](const auto& entry) { return entry.first.expired(); });
  table.hooks[x.shared_impl()].push_back(std::move(hook));
}

}  // namespace centroid
