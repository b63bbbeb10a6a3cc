#include "nn/module.h"

#include <algorithm>
#include <iomanip>
#include <map>
#include <set>
#include <sstream>

#include "tensor/ops.h"

namespace centroid::nn {

namespace {

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

std::string describe(const Tensor& x) { return concat(x.dtype(), " ", x.shape()); }

// Replaces the data behind every handle to `parameter`.
void replace_data(const Tensor& parameter, const Tensor& data) {
  TensorImpl& impl = parameter.impl();
  const Tensor fresh = raw::contiguous(data);
  impl.storage = fresh.impl().storage;
  impl.offset = fresh.impl().offset;
  impl.strides = fresh.strides();
  impl.dtype = fresh.dtype();
  impl.grad = nullptr;
}

}  // namespace

template <typename F>
void Module::visit(const std::string& prefix, F&& f) const {
  for (const Member& member : members_) {
    const std::string name = join(prefix, member.name);
    member.parameter ? f(name, *member.parameter) : member.child->visit(name, f);
  }
}

NamedTensors Module::named_parameters() const {
  NamedTensors all;
  std::set<const TensorImpl*> seen;
  visit("", [&](const std::string& name, const Tensor& tensor) {
    if (seen.insert(&tensor.impl()).second) all.emplace_back(name, tensor);
  });
  return all;
}

std::vector<Tensor> Module::parameters() const {
  std::vector<Tensor> all;
  for (auto& [name, tensor] : named_parameters()) all.push_back(tensor);
  return all;
}

int64_t Module::parameter_count() const {
  int64_t count = 0;
  for (const auto& [name, tensor] : named_parameters()) count += tensor.numel();
  return count;
}

void Module::assign_paths(const std::string& own) {
  path_ = own;
  for (const Member& member : members_) {
    if (member.child) member.child->assign_paths(join(own, member.name));
  }
}

void Module::to(Device device) {
  for (const Tensor& x : parameters()) {
    if (x.device() != device) replace_data(x, raw::to(x, device));
  }
}

void Module::to(DType dtype) {
  CENTROID_CHECK(dtype == DType::f32 || dtype == DType::f64,
                 "module: dtype: expected f32 or f64, got ", dtype);
  for (const Tensor& x : parameters()) {
    if (x.dtype() != dtype) replace_data(x, raw::cast(x, dtype));
  }
}

void Module::set_requires_grad(bool value, const std::string& prefix) {
  bool found = prefix.empty();
  for (auto& [name, tensor] : named_parameters()) {
    if (!name.starts_with(prefix)) continue;
    tensor.set_requires_grad(value);
    found = true;
  }
  CENTROID_CHECK(found, "set_requires_grad: no parameter's name starts with '", prefix,
                 "' (summary(model) lists them)");
}

void Module::zero_grad() {
  for (const Tensor& x : parameters()) x.impl().grad = nullptr;
}

std::vector<std::string> Module::load(const NamedTensors& tensors, bool strict) {
  std::map<std::string, Tensor> given;
  std::vector<std::string> problems, kept, homeless;
  for (const auto& [name, tensor] : tensors) {
    CENTROID_CHECK(given.emplace(name, tensor).second, "load: key given twice: ", name);
  }
  std::vector<std::pair<Tensor, Tensor>> copies;  // parameter, data
  for (const auto& [name, parameter] : named_parameters()) {
    const auto found = given.find(name);
    if (found == given.end()) {
      problems.push_back("missing: " + name + " " + describe(parameter));
      kept.push_back(name);
      continue;
    }
    const Tensor data = found->second;
    given.erase(found);
    if (data.shape() == parameter.shape() && data.dtype() == parameter.dtype()) {
      copies.emplace_back(parameter, data);
    } else {
      problems.push_back(concat("mismatched: ", name, ": the model has ", describe(parameter),
                                ", got ", describe(data)));
      kept.push_back(name);
    }
  }
  for (const auto& [name, data] : given) {
    problems.push_back("unexpected: " + name + " " + describe(data));
    homeless.push_back(name);
  }
  if (strict && !problems.empty()) {
    std::string text = concat("load: ", problems.size(),
                              " keys do not fit this model (is it the one that was saved?):");
    for (const std::string& problem : problems) text += "\n  " + problem;
    throw Error(text);
  }
  for (const auto& [parameter, data] : copies) {
    raw::copy_(parameter.detach(), raw::to(data.detach(), parameter.device()));
  }
  kept.insert(kept.end(), homeless.begin(), homeless.end());
  return kept;
}

void Module::check_free(const std::string& name) const {
  CENTROID_CHECK(!name.empty(), "module: a parameter or child has no name");
  for (const Member& member : members_) {
    CENTROID_CHECK(member.name != name, "module: the name '", name, "' is registered twice");
  }
}

void Module::add_parameter(std::string name, Tensor& tensor) {
  check_free(name);
  tensor.set_requires_grad();
  members_.push_back({.name = std::move(name), .parameter = &tensor});
}

void Module::add_module(std::string name, Module& child) {
  check_free(name);
  members_.push_back({.name = std::move(name), .child = &child});
}

std::string summary(const Module& model) {
  const NamedTensors all = model.named_parameters();
  size_t name_width = 9, shape_width = 5;
  for (const auto& [name, tensor] : all) {
    name_width = std::max(name_width, name.size());
    shape_width = std::max(shape_width, to_string(tensor.shape()).size());
  }
  std::ostringstream out;
  const auto line = [&](const std::string& name, const std::string& shape, const auto& count) {
    out << std::left << std::setw(static_cast<int>(name_width) + 2) << name
        << std::setw(static_cast<int>(shape_width) + 2) << shape << std::right << std::setw(12)
        << count << '\n';
  };
  line("parameter", "shape", "values");
  for (const auto& [name, tensor] : all) line(name, to_string(tensor.shape()), tensor.numel());
  line("total", "", model.parameter_count());
  return out.str();
}

}  // namespace centroid::nn
