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

/// What a forward pass needs besides its input. `rng` feeds dropout and stochastic attention; it
/// must be set when `training`.
struct Context {
  bool training = false;
  Rng* rng = nullptr;
  /// When set, called by every MultiHead with its module path before it attends: for drawing maps.
  std::function<void(const std::string& path, Attention&, const AttentionInput&)> tap{};
};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// Base of everything with parameters. Derived classes keep parameters and children as plain
/// members (lists of children through std::deque or unique_ptr) and register them in the
/// constructor; `forward` is not virtual: each module has the signature it needs.
class Module {
 public:
  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  /// Parameters with dotted names such as `layers.0.ff.up.weight`, in registration order. A tensor
  /// that is registered twice (tied weights) appears once, under its first name.
  NamedTensors named_parameters() const;
  /// The same without names.
  std::vector<Tensor> parameters() const;
  /// Number of learned values.
  int64_t parameter_count() const;
  /// The dotted path of this module below the root, set by `assign_paths` ("" for the root).
  const std::string& path() const { return path_; }
  /// Gives every module below `this` its path; called once by whoever owns the root.
  void assign_paths(const std::string& own = "");

  /// Moves the parameters to `device`, or converts them to another float type. Handles to them held
  /// elsewhere (by an optimiser, say) see the change; gradients are dropped.
  void to(Device device);
  void to(DType dtype);
  /// Parameters whose name starts with `prefix` receive gradients or not (freezing). Throws when
  /// there are none of that name.
  void set_requires_grad(bool value, const std::string& prefix = "");
  /// Forgets all gradients.
  void zero_grad();

  /// Copies `tensors` into the parameters of the same names. With `strict`, throws one Error that
  /// lists every missing, unexpected and mismatched key, and copies nothing then; otherwise loads
  /// what fits and returns the names that were not loaded: parameters that kept their values, then
  /// keys that found no place. A tensor of another shape or dtype never fits.
  std::vector<std::string> load(const NamedTensors& tensors, bool strict = true);

 protected:
  /// Registers a member tensor that is learned. `tensor` must live as long as the module. Throws
  /// for a name that is taken.
  void add_parameter(std::string name, Tensor& tensor);
  /// Registers a child; elements of lists are named `layers.0`, `layers.1`, ...
  void add_module(std::string name, Module& child);

 private:
  template <typename F>
  void visit(const std::string& prefix, F&& f) const;
  void check_free(const std::string& name) const;

  // A parameter or a child; one list, as names come in the order of registration.
  struct Member {
    std::string name;
    Tensor* parameter = nullptr;
    Module* child = nullptr;
  };
  std::vector<Member> members_;
  std::string path_;
};

/// A table of parameter names, shapes and counts, with the total in the last line.
std::string summary(const Module& model);

}  // namespace centroid::nn
