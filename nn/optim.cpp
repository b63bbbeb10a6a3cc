#include "nn/optim.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "tensor/ops.h"

namespace centroid::nn {
namespace {

void check_options(const OptimizerOptions& o) {
  const char* kinds[] = {"sgd", "adam", "adamw", "radam"};
  CENTROID_CHECK(std::find(std::begin(kinds), std::end(kinds), o.kind) != std::end(kinds),
                 "optimizer: kind: expected sgd, adam, adamw or radam, got '", o.kind, "'");
  CENTROID_CHECK(o.weight_decay >= 0 && std::isfinite(o.weight_decay),
                 "optimizer: weight_decay: expected a number from 0 up, got ", o.weight_decay);
  CENTROID_CHECK(o.momentum >= 0 && o.momentum < 1,
                 "optimizer: momentum: expected a number in [0, 1), got ", o.momentum);
  CENTROID_CHECK(!o.nesterov || o.momentum > 0, "optimizer: nesterov: expected momentum > 0, got ",
                 o.momentum);
  CENTROID_CHECK(o.beta1 >= 0 && o.beta1 < 1, "optimizer: beta1: expected a number in [0, 1), got ",
                 o.beta1);
  CENTROID_CHECK(o.beta2 >= 0 && o.beta2 < 1, "optimizer: beta2: expected a number in [0, 1), got ",
                 o.beta2);
  CENTROID_CHECK(o.eps > 0 && std::isfinite(o.eps), "optimizer: eps: expected a number > 0, got ",
                 o.eps);
}

std::vector<Tensor> grads_of(const NamedTensors& parameters) {
  std::vector<Tensor> grads;
  for (const auto& [name, w] : parameters) {
    if (w.grad().defined()) grads.push_back(w.grad());
  }
  return grads;
}

Tensor count_tensor(int64_t count) { return from_vector<int64_t>({count}, {1}, Device{}); }

}  // namespace

Optimizer::Optimizer(NamedTensors parameters, const OptimizerOptions& options)
    : parameters_(std::move(parameters)), options_(options), slots_(parameters_.size()) {
  check_options(options_);
  std::set<std::string> names;
  for (const auto& [name, w] : parameters_) {
    CENTROID_CHECK(names.insert(name).second, "optimizer: two parameters are named '", name, "'");
    CENTROID_CHECK(w.dtype() == DType::f32 || w.dtype() == DType::f64, "optimizer: ", name,
                   ": expected f32 or f64, got ", w.dtype());
    CENTROID_CHECK(w.is_contiguous(), "optimizer: ", name, ": expected a contiguous tensor");
    const Device device = parameters_[0].second.device();
    CENTROID_CHECK(w.device() == device, "optimizer: ", name, ": expected to be on ", device,
                   ", where the first parameter is, but is on ", w.device());
  }
}

bool Optimizer::updates(size_t i) const {
  const Tensor& w = parameters_[i].second;
  return w.grad().defined() && w.numel() > 0;
}

double Optimizer::decay_of(const Tensor& w) const {
  return w.dim() >= 2 || options_.decay_vectors ? options_.weight_decay : 0;
}

void Optimizer::step(double lr, const Tensor& scale) {
  CENTROID_CHECK(lr >= 0 && std::isfinite(lr),
                 "optimizer: learning rate: expected a finite number from 0 up, got ", lr);
  const bool is_sgd = options_.kind == "sgd";
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!updates(i)) continue;
    const Tensor& w = parameters_[i].second;
    Slot& slot = slots_[i];
    if (!slot.m.defined() && (!is_sgd || options_.momentum > 0)) {
      slot.m = zeros(w.shape(), w.dtype(), w.device());
    }
    if (!slot.v.defined() && !is_sgd) slot.v = zeros(w.shape(), w.dtype(), w.device());
    ++slot.updates;
    w.bump_version("optimizer step");
  }
  is_sgd ? sgd(lr, scale) : adam(lr, scale);
  ++step_;
}

void Optimizer::sgd(double lr, const Tensor& scale) const {
  std::vector<SgdTensors> list;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!updates(i)) continue;
    const Tensor& w = parameters_[i].second;
    list.push_back({w, raw::contiguous(w.grad()), slots_[i].m, decay_of(w)});
  }
  if (list.empty()) return;
  CENTROID_DISPATCH(list[0].w.device(), sgd_step, list, scale, lr, options_.momentum,
                    options_.nesterov);
}

void Optimizer::adam(double lr, const Tensor& scale) const {
  const OptimizerOptions& o = options_;
  std::vector<AdamTensors> list;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!updates(i)) continue;
    const Tensor& w = parameters_[i].second;
    const Slot& slot = slots_[i];
    const double t = static_cast<double>(slot.updates);
    list.push_back({w, raw::contiguous(w.grad()), slot.m, slot.v, decay_of(w),
                    1 - std::pow(o.beta1, t), 1 - std::pow(o.beta2, t),
                    o.kind == "radam" ? radam_rectifier(slot.updates, o.beta2) : 1});
  }
  if (list.empty()) return;
  const AdamRule rule{lr, o.beta1, o.beta2, o.eps, o.kind == "adamw"};
  CENTROID_DISPATCH(list[0].w.device(), adam_step, list, scale, rule);
}

void Optimizer::retract() {
  CENTROID_CHECK(step_ > 0, "optimizer: retract: no step was taken");
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (updates(i)) --slots_[i].updates;
  }
  --step_;
}

void Optimizer::zero_grad() {
  for (const auto& [name, w] : parameters_) w.set_grad({});
}

std::vector<std::pair<std::string, Tensor Optimizer::Slot::*>> Optimizer::slot_tensors() const {
  if (options_.kind != "sgd") return {{".m", &Slot::m}, {".v", &Slot::v}};
  if (options_.momentum > 0) return {{".momentum", &Slot::m}};
  return {};
}

NamedTensors Optimizer::state() const {
  NamedTensors state = {{"step", count_tensor(step_)}};
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].updates == 0) continue;
    const std::string& name = parameters_[i].first;
    state.emplace_back(name + ".updates", count_tensor(slots_[i].updates));
    for (const auto& [suffix, member] : slot_tensors()) {
      state.emplace_back(name + suffix, slots_[i].*member);
    }
  }
  return state;
}

void Optimizer::load_state(const NamedTensors& state) {
  std::string problems;
  std::map<std::string, Tensor> left;
  for (const auto& [name, tensor] : state) {
    if (!left.emplace(name, tensor).second) problems += "\n  twice: " + name;
  }
  // The tensor `name`, or an undefined one after noting what is wrong with it.
  const auto take = [&](const std::string& name, const Shape& shape, DType dtype) {
    const auto found = left.find(name);
    if (found == left.end()) {
      problems += "\n  missing: " + name;
      return Tensor();
    }
    const Tensor tensor = found->second;
    left.erase(found);
    if (tensor.shape() == shape && tensor.dtype() == dtype) return tensor;
    problems += concat("\n  ", name, ": expected ", dtype, " ", shape, ", got ", tensor.dtype(),
                       " ", tensor.shape());
    return Tensor();
  };
  const auto take_count = [&](const std::string& name) {
    const Tensor count = take(name, {1}, DType::i64);
    if (!count.defined()) return int64_t{0};
    const int64_t value = count.to_vector<int64_t>()[0];
    if (value < 0) problems += concat("\n  ", name, ": expected a count, got ", value);
    return value;
  };

  const int64_t step = take_count("step");
  std::vector<Slot> slots(slots_.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    const auto& [name, w] = parameters_[i];
    if (!left.contains(name + ".updates")) continue;  // never updated
    slots[i].updates = take_count(name + ".updates");
    for (const auto& [suffix, member] : slot_tensors()) {
      const Tensor tensor = take(name + suffix, w.shape(), w.dtype());
      if (tensor.defined()) slots[i].*member = raw::clone(raw::to(tensor, w.device()));
    }
  }
  for (const auto& [name, tensor] : left) problems += "\n  unexpected: " + name;
  CENTROID_CHECK(problems.empty(), "optimizer: state does not fit ", options_.kind, " on these ",
                 parameters_.size(), " parameters:", problems);
  slots_ = std::move(slots);
  step_ = step;
}

double radam_rectifier(int64_t t, double beta2) {
  const double rho_inf = 2 / (1 - beta2) - 1;
  const double power = std::pow(beta2, static_cast<double>(t));
  const double rho = rho_inf - 2 * static_cast<double>(t) * power / (1 - power);
  if (!(rho > 5)) return 0;
  return std::sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho));
}

double clip_grad_norm(const NamedTensors& parameters, double max_norm) {
  CENTROID_CHECK(max_norm >= 0, "clip_grad_norm: max_norm: expected a number from 0 up, got ",
                 max_norm);
  const double norm = raw::global_norm(grads_of(parameters));
  if (max_norm == 0 || !std::isfinite(norm) || norm <= max_norm) return norm;
  for (const auto& [name, w] : parameters) {
    // A new tensor, because another owner may hold the gradient.
    if (w.grad().defined()) w.set_grad(raw::mul(w.grad(), max_norm / norm));
  }
  return norm;
}

GradNorm grad_norm(const NamedTensors& parameters, double max_norm) {
  CENTROID_CHECK(max_norm >= 0, "grad_norm: max_norm: expected a number from 0 up, got ", max_norm);
  const Tensor norm = raw::sqrt(raw::sum_squares(grads_of(parameters)));
  const double most = max_norm > 0 ? max_norm : std::numeric_limits<double>::infinity();
  const Tensor ratio = raw::div(full({1}, most, DType::f64, norm.device()), norm);
  // 0 * norm is NaN when the norm is not finite.
  return {norm, raw::add(raw::clamp(ratio, 0, 1), raw::mul(norm, 0))};
}

Ema::Ema(const NamedTensors& parameters, double decay) : decay_(decay) {
  CENTROID_CHECK(decay >= 0 && decay < 1, "ema: decay: expected a number in [0, 1), got ", decay);
  for (const auto& [name, w] : parameters) averages_.emplace_back(name, raw::clone(w.detach()));
}

void Ema::check(const NamedTensors& parameters) const {
  CENTROID_CHECK(parameters.size() == averages_.size(), "ema: expected ", averages_.size(),
                 " parameters, got ", parameters.size());
  for (size_t i = 0; i < averages_.size(); ++i) {
    const auto& [name, average] = averages_[i];
    CENTROID_CHECK(parameters[i].first == name, "ema: expected parameter ", name, ", got ",
                   parameters[i].first);
    CENTROID_CHECK(parameters[i].second.shape() == average.shape(), "ema: ", name,
                   ": expected shape ", average.shape(), ", got ", parameters[i].second.shape());
    CENTROID_CHECK(parameters[i].second.dtype() == average.dtype() &&
                       parameters[i].second.device() == average.device(),
                   "ema: ", name, ": expected ", average.dtype(), " on ", average.device(),
                   ", got ", parameters[i].second.dtype(), " on ", parameters[i].second.device());
  }
}

void Ema::update(const NamedTensors& parameters) {
  check(parameters);
  std::vector<EmaTensors> list;
  for (size_t i = 0; i < averages_.size(); ++i) {
    const Tensor& average = averages_[i].second;
    average.bump_version("ema");
    list.push_back({average, raw::contiguous(parameters[i].second)});
  }
  if (!list.empty()) CENTROID_DISPATCH(list[0].average.device(), ema_step, list, 1 - decay_);
}

void Ema::swap(const NamedTensors& parameters) {
  check(parameters);
  for (size_t i = 0; i < averages_.size(); ++i) {
    const Tensor value = raw::clone(parameters[i].second.detach());
    raw::copy_(parameters[i].second, averages_[i].second);
    raw::copy_(averages_[i].second, value);
  }
}

}  // namespace centroid::nn
