// The graph behind a tensor as a picture: operations are ellipses, leaves are boxes.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "autograd/node.h"
#include "tensor/file.h"

namespace centroid {
namespace {

// Every node behind `root`, in the order of creation.
std::vector<const Node*> nodes_behind(const Node* root) {
  std::vector<const Node*> nodes, stack{root};
  std::unordered_set<const Node*> seen;
  while (!stack.empty()) {
    const Node* node = stack.back();
    stack.pop_back();
    if (!node || !seen.insert(node).second) continue;
    nodes.push_back(node);
    for (const Edge& edge : node->edges) stack.push_back(edge.node.get());
  }
  std::sort(nodes.begin(), nodes.end(),
            [](const Node* a, const Node* b) { return a->seq < b->seq; });
  return nodes;
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

// Numbers are given in the order of creation, so the same program writes the same file.
class DotWriter {
 public:
  std::string write(const Tensor& y) {
    text_ = "digraph centroid {\n  node [fontname=\"sans-serif\"];\n";
    if (!y.grad_fn()) leaf(y.shared_impl());
    for (const Node* node : nodes_behind(y.grad_fn().get())) {
      const size_t number = numbers_.emplace(node, numbers_.size()).first->second;
      std::string shapes;
      for (const Shape& shape : node->output_shapes) shapes += "\\n" + to_string(shape);
      const std::string name = quoted(node->name);
      text_ += concat("  n", number, " [label=", name.substr(0, name.size() - 1), shapes, "\"];\n");
      for (const Edge& edge : node->edges) {
        if (!edge.needed()) continue;
        const std::string from =
            edge.leaf ? leaf(edge.leaf) : concat("n", numbers_.at(edge.node.get()));
        text_ += concat("  ", from, " -> n", number, " [label=\"", edge.shape, "\"];\n");
      }
    }
    return text_ + "}\n";
  }

 private:
  // The name of a leaf's box, drawn at its first use.
  std::string leaf(const std::shared_ptr<TensorImpl>& impl) {
    const auto [it, is_new] = numbers_.emplace(impl.get(), numbers_.size());
    const std::string name = concat("n", it->second);
    if (is_new) {
      text_ +=
          concat("  ", name, " [shape=box, label=\"", impl->requires_grad ? "leaf" : "constant",
                 "\\n", impl->dtype, " ", impl->shape, "\"];\n");
    }
    return name;
  }

  std::string text_;
  std::unordered_map<const void*, size_t> numbers_;
};

}  // namespace

void write_dot(const Tensor& y, const std::string& path) {
  CENTROID_CHECK(y.defined(), "write_dot: expected a tensor, got an undefined one");
  const std::string text = DotWriter().write(y);
  write_file_atomic(path, text.data(), text.size());
}

}  // namespace centroid
