// Modules: names, paths, loading, freezing, conversion.
#include <catch2/catch.hpp>

#include "nn/layers.h"
#include "nn/names.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

struct Leaf : Module {
  explicit Leaf(int64_t n) : weight(full({n, 2}, 0.5)), bias(zeros({n})) {
    add_parameter("weight", weight);
    add_parameter("bias", bias);
  }
  Tensor weight, bias;
};

struct Tree : Module {
  Tree() : scale(ones({1})), first(3) {
    add_parameter("scale", scale);
    add_module("first", first);
    for (int i = 0; i < 2; ++i) add_module(concat("list.", i), list.emplace_back(i + 1));
  }
  Tensor scale;
  Leaf first;
  std::deque<Leaf> list;
};

struct Tied : Module {
  Tied() : a(2) {
    b = a.weight;
    add_module("a", a);
    add_parameter("b", b);
  }
  Leaf a;
  Tensor b;
};

struct Transposed : Module {
  Transposed() : x(strided(from_vector(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3}))) {
    add_parameter("x", x);
  }
  Tensor x;
};

struct Twice : Module {
  Twice() : x(zeros({1})) {
    add_parameter("x", x);
    add_parameter("x", x);
  }
  Tensor x;
};

std::vector<std::string> names_of(const Module& m) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : m.named_parameters()) names.push_back(name);
  return names;
}

}  // namespace

TEST_CASE("parameters have dotted names in registration order") {
  const Tree tree;
  CHECK(names_of(tree) == std::vector<std::string>{"scale", "first.weight", "first.bias",
                                                   "list.0.weight", "list.0.bias", "list.1.weight",
                                                   "list.1.bias"});
  CHECK(tree.parameters().size() == 7);
  CHECK(tree.parameter_count() == 1 + 9 + 3 + 6);
  for (const Tensor& x : tree.parameters()) CHECK(x.requires_grad());
}

TEST_CASE("a tied parameter appears once") {
  const Tied tied;
  CHECK(names_of(tied) == std::vector<std::string>{"a.weight", "a.bias"});
  CHECK(tied.parameter_count() == 6);
}

TEST_CASE("a name cannot be registered twice") {
  CHECK_THAT(error_of([] { Twice twice; }), Contains("'x' is registered twice"));
}

TEST_CASE("paths are those of the names, below what the owner says") {
  Tree tree;
  CHECK(tree.first.path().empty());
  tree.assign_paths();
  CHECK(tree.path().empty());
  CHECK(tree.first.path() == "first");
  CHECK(tree.list[1].path() == "list.1");
  tree.assign_paths("model");
  CHECK(tree.path() == "model");
  CHECK(tree.list[1].path() == "model.list.1");
}

TEST_CASE("strict loading reports every key that does not fit and changes nothing") {
  Tree tree;
  const NamedTensors file = {{"scale", full({1}, 7)},
                             {"first.weight", zeros({3, 3})},
                             {"first.bias", zeros({3}, DType::f64)},
                             {"list.0.weight", zeros({1, 2})},
                             {"extra.x", zeros({4})}};
  const std::string error = error_of([&] { tree.load(file); });
  CHECK_THAT(error, Contains("load: 6 keys do not fit"));
  CHECK_THAT(error, Contains("missing: list.0.bias f32 (1,)"));
  CHECK_THAT(error, Contains("missing: list.1.weight f32 (2, 2)"));
  CHECK_THAT(error, Contains("missing: list.1.bias"));
  CHECK_THAT(error, Contains("unexpected: extra.x f32 (4,)"));
  CHECK_THAT(error, Contains("mismatched: first.weight: the model has f32 (3, 2), got f32 (3, 3)"));
  CHECK_THAT(error, Contains("mismatched: first.bias: the model has f32 (3,), got f64 (3,)"));
  CHECK(tree.scale.item() == 1);
}

TEST_CASE("loading without strictness takes what fits and says what did not") {
  Tree tree;
  const NamedTensors file = {{"scale", full({1}, 7)},
                             {"first.weight", zeros({3, 3})},
                             {"list.0.weight", zeros({1, 2})},
                             {"extra.x", zeros({4})}};
  CHECK(tree.load(file, false) == std::vector<std::string>{"first.weight", "first.bias",
                                                           "list.0.bias", "list.1.weight",
                                                           "list.1.bias", "extra.x"});
  CHECK(tree.scale.item() == 7);
  CHECK(mismatch(tree.list[0].weight, std::vector<double>{0, 0}) == "");
  CHECK(tree.first.weight.to_vector<float>()[0] == 0.5f);
}

TEST_CASE("loading copies into the parameters: handles stay, history does not arise") {
  Leaf from(2), into(2);
  raw::fill_(from.weight.detach(), 3);
  const Tensor handle = into.weight;
  CHECK(into.load(from.named_parameters()).empty());
  CHECK(mismatch(handle, std::vector<double>{3, 3, 3, 3}) == "");
  CHECK(into.weight.requires_grad());
  CHECK(into.weight.grad_fn() == nullptr);
  raw::fill_(from.weight.detach(), 4);
  CHECK(handle.to_vector<float>()[0] == 3);
  NamedTensors doubled = from.named_parameters();
  doubled.push_back(doubled[0]);
  CHECK_THAT(error_of([&] { into.load(doubled, false); }), Contains("key given twice: weight"));
}

TEST_CASE("parameters can be frozen by prefix") {
  Tree tree;
  tree.set_requires_grad(false, "list.");
  CHECK(tree.scale.requires_grad());
  CHECK_FALSE(tree.list[0].weight.requires_grad());
  CHECK_FALSE(tree.list[1].bias.requires_grad());
  tree.set_requires_grad(true);
  CHECK(tree.list[1].bias.requires_grad());
  CHECK_THAT(error_of([&] { tree.set_requires_grad(false, "lust"); }),
             Contains("no parameter's name starts with 'lust'"));
}

TEST_CASE("zero_grad forgets gradients") {
  Leaf leaf(2);
  backward(sum(leaf.weight * 3.0));
  CHECK(leaf.weight.grad().defined());
  leaf.zero_grad();
  CHECK_FALSE(leaf.weight.grad().defined());
}

TEST_CASE("converting to f64 keeps values and handles") {
  Leaf leaf(2);
  const Tensor handle = leaf.weight;
  leaf.to(DType::f64);
  CHECK(handle.dtype() == DType::f64);
  CHECK(handle.requires_grad());
  CHECK(mismatch(leaf.weight, std::vector<double>{0.5, 0.5, 0.5, 0.5}, 0, 0) == "");
  CHECK_THAT(error_of([&] { leaf.to(DType::i64); }), Contains("expected f32 or f64, got i64"));
  Transposed transposed;
  transposed.to(DType::f64);
  CHECK(mismatch(transposed.x, std::vector<double>{1, 2, 3, 4, 5, 6}, 0, 0) == "");
  leaf.to(Device{});
  CHECK(handle.numel() == 4);
}

TEST_CASE("the summary lists names, shapes, counts and the total") {
  const std::string text = summary(Tree());
  CHECK_THAT(text, Contains("first.weight") && Contains("(3, 2)"));
  CHECK_THAT(text, Contains("total"));
  CHECK(text.substr(text.rfind(' ') + 1) == "19\n");
}

TEST_CASE("names are listed nearest first") {
  CHECK(nearest_first({"alpha", "cosine", "const"}, "cosin") == "cosine, const, alpha");
  CHECK(nearest_first({}, "x") == "none");
}
