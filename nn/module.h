#pragma once
// A module owns parameters and other modules, and knows their names.
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tensor/lengths.h"
#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace centroid::nn {

class Attention;
struct AttentionInput;

/// What a forward pass needs besides its input. `rng` feeds dropout and stochastic attention; it must
/// be set when `training`.
struct Context {
  bool training = false;
  Rng* rng = nullptr;
  /// When set, called by every MultiHead with its module path before it attends: for drawing maps.
  std::function<void(const std::string& path, Attention&, const AttentionInput&)> tap;
};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// Base of everything with parameters. Derived classes keep parameters and children as plain members
/// (lists of children through std::deque or unique_ptr) and register them in the constructor; `forward`
/// is not virtual: each module has the signature it needs.
class Module {
 public:
  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  /// Parameters with dotted names such as `layers.0.ff.up.weight`, in registration order.
  NamedTensors named_parameters() const;
  std::vector<Tensor> parameters() const;
  int64_t parameter_count() const;
  /// The dotted path of this module below the root, set by `assign_paths` ("" for the root).
  const std::string& path() const { return path_; }
  /// Gives every module below `this` its path; called once by whoever owns the root.
  void assign_paths(const std::string& own = "");

  void to(Device device);
  /// Parameters whose name starts with `prefix` receive gradients or not (freezing).
  void set_requires_grad(bool value, const std::string& prefix = "");
  void zero_grad();

  /// Copies `tensors` into the parameters of the same names. With `strict`, throws one Error that
  /// lists every missing, unexpected and mismatched key; otherwise loads what fits and returns the
  /// names that were not loaded.
  std::vector<std::string> load(const NamedTensors& tensors, bool strict = true);

 protected:
  /// Registers a member tensor that is learned. `tensor` must live as long as the module.
  void add_parameter(std::string name, Tensor& tensor);
  /// Registers a child.
  void add_module(std::string name, Module& child);

 private:
  std::vector<std::pair<std::string, Tensor*>> parameters_;
  std::vector<std::pair<std::string, Module*>> children_;
  std::string path_;
};

/// A table of parameter names, shapes and counts.
std::string summary(const Module& model);

}  // namespace centroid::nn
