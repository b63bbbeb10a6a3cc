// What holds for every differentiable operation: the list is in cases_*.cpp.
#include <catch2/catch.hpp>
#include <regex>
#include <set>

#include "tensor/parallel.h"
#include "tests/autograd/cases.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// The gradients of sum(w * f(x)) with weights drawn from `seed`, one for each input.
Tensors gradients_of(const TensorFunction& f, const Tensors& inputs, uint64_t seed) {
  Tensors xs;
  for (const Tensor& x : inputs) {
    xs.push_back(raw::clone(x));
    if (x.requires_grad()) xs.back().set_requires_grad();
  }
  Rng rng(seed);
  Tensor total;
  for (const Tensor& y : f(xs)) {
    if (!is_float(y.dtype())) continue;
    const Tensor part = sum(y * randn(y.shape(), rng, y.dtype()));
    total = total.defined() ? total + part : part;
  }
  backward(total);
  Tensors result;
  for (const Tensor& x : xs) result.push_back(x.grad());
  return result;
}

Tensors in_precision(const Tensors& inputs, DType dtype) {
  Tensors result;
  for (const Tensor& x : inputs) {
    // The f64 values are those of the f32 inputs, so that rounding the inputs is no difference.
    Tensor y = x;
    if (is_float(x.dtype())) y = raw::cast(raw::cast(x, DType::f32), dtype);
    if (x.requires_grad()) y.set_requires_grad();
    result.push_back(y);
  }
  return result;
}

}  // namespace

TEST_CASE("every operation's gradient agrees with central differences") {
  for (const Case& c : all_cases()) {
    INFO(c.name);
    const GradcheckReport report = gradcheck(c.f, c.inputs, c.options);
    CHECK((report.ok ? "" : report.message) == "");
  }
}

TEST_CASE("every operation declared in autograd/ops.h has a gradcheck") {
  const std::string header = read_text(repository_root() / "autograd" / "ops.h");
  std::set<std::string> declared, tested;
  const std::regex declaration(
      R"((?:^|\n)(?:Tensor|std::vector<Tensor>|std::pair<Tensor, Tensor>|Attended) ([a-z_0-9]+|operator.)\()");
  for (auto it = std::sregex_iterator(header.begin(), header.end(), declaration);
       it != std::sregex_iterator(); ++it) {
    declared.insert((*it)[1]);
  }
  for (const Case& c : all_cases()) tested.insert(c.name.substr(0, c.name.find(':')));
  CHECK(declared.size() > 60);
  for (const std::string& name : declared) {
    INFO(name);
    CHECK(tested.count(name) == 1);
  }
}

TEST_CASE("f32 gradients agree with f64 ones") {
  for (const Case& c : all_cases()) {
    if (c.name == "cast: same") continue;  // changes the dtype
    INFO(c.name);
    const Tensors exact = gradients_of(c.f, in_precision(c.inputs, DType::f64), 3);
    const Tensors single = gradients_of(c.f, in_precision(c.inputs, DType::f32), 3);
    for (size_t i = 0; i < exact.size(); ++i) {
      CHECK(mismatch(single[i], exact[i], 2e-4, 2e-5) == "");
    }
  }
}

TEST_CASE("gradients do not depend on the number of threads") {
  Rng rng(1);
  const Tensor tokens = randint({9, 130}, 50, rng);
  const Tensor classes = randint({9, 130}, 33, rng);
  const auto leaf = [&](const Shape& shape) {
    return randn(shape, rng, DType::f32, 0.3).set_requires_grad();
  };
  const Tensors inputs = {leaf({50, 96}),  leaf({96}),  leaf({96}),
                          leaf({192, 96}), leaf({192}), leaf({33, 192})};
  const auto model = [&](const Tensors& w) -> Tensors {
    Rng drop(5, "dropout");
    const Tensor x = layer_norm(embedding(w[0], tokens), w[1], w[2]);
    const Tensor scores = masked_softmax(unsqueeze(matmul(x, transpose(x, 1, 2)), 1), 0.1, {},
                                         Lengths(std::vector<int64_t>(9, 111)), false);
    const Tensor mixed = matmul(squeeze(scores, 1), x) + x;
    const Tensor h = centroid::linear(mixed, w[3], w[4], {true, Unary::gelu});
    return {cross_entropy(linear(dropout(h, 0.2, drop), w[5]), classes, -100, 0.1)};
  };
  const int before = num_threads();
  set_num_threads(1);
  const Tensors one = gradients_of(model, inputs, 3);
  for (int threads : {2, 3, 4}) {
    set_num_threads(threads);
    const Tensors many = gradients_of(model, inputs, 3);
    for (size_t i = 0; i < one.size(); ++i) CHECK(same_bits(one[i], many[i]));
  }
  set_num_threads(before);
}

TEST_CASE("ties share the gradient of max, min, maximum and minimum equally") {
  Tensor x = from_vector<double>({2, 5, 5, 1, 5, 1}, {2, 3});
  x.set_requires_grad();
  backward(max(x));
  CHECK(mismatch(x.grad(), {0, 1. / 3, 1. / 3, 0, 1. / 3, 0}) == "");
  x.set_grad({});
  backward(min(x));
  CHECK(mismatch(x.grad(), {0, 0, 0, 0.5, 0, 0.5}) == "");
  x.set_grad({});
  backward(sum(max(x, {1})));
  CHECK(mismatch(x.grad(), {0, 0.5, 0.5, 0, 1, 0}) == "");

  Tensor a = from_vector<double>({1, 2, 3}, {3}), b = from_vector<double>({1, 3, 2}, {3});
  a.set_requires_grad();
  b.set_requires_grad();
  backward(sum(maximum(a, b)));
  CHECK(mismatch(a.grad(), {0.5, 0, 1}) == "");
  CHECK(mismatch(b.grad(), {0.5, 1, 0}) == "");
  a.set_grad({});
  b.set_grad({});
  backward(sum(minimum(a, b)));
  CHECK(mismatch(a.grad(), {0.5, 1, 0}) == "");
  CHECK(mismatch(b.grad(), {0.5, 0, 1}) == "");
}

TEST_CASE("pow has finite gradients at the border of its domain") {
  Tensor a = from_vector<double>({0, 0, 0, -2}, {4}), b = from_vector<double>({0, 1, 2, 3}, {4});
  a.set_requires_grad();
  b.set_requires_grad();
  backward(sum(pow(a, b)));
  CHECK(mismatch(a.grad(), {0, 1, 0, 12}) == "");
  CHECK(mismatch(b.grad(), {0, 0, 0, 0}) == "");
}

TEST_CASE("logsumexp of a row of -inf has gradient zero") {
  Tensor x = from_vector<double>({-INFINITY, -INFINITY, 0, -INFINITY}, {2, 2});
  x.set_requires_grad();
  backward(sum(logsumexp(x, {1})));
  CHECK(mismatch(x.grad(), {0, 0, 1, 0}) == "");
}

TEST_CASE("an infeasible CTC item has infinite loss and gradient zero") {
  Tensor x = param({2, 3, 4});
  const Tensor targets = from_vector<int32_t>({1, 1, 2, 2, 1, 1}, {2, 3});
  // Item 0 needs four frames: its repeated label wants a blank between.
  const Tensor losses = ctc(x, targets, Lengths({3, 3}), Lengths({3, 1}));
  CHECK(std::isinf(losses.to_vector<double>()[0]));
  CHECK(std::isfinite(losses.to_vector<double>()[1]));
  backward(losses, ones({2}, DType::f64));
  const Tensor dx = x.grad();
  CHECK(mismatch(raw::select(dx, 0, 0), std::vector<double>(12, 0.0)) == "");
  CHECK(mismatch(raw::sum(raw::abs(raw::select(dx, 0, 1))), {0.0}) != "");
}

TEST_CASE("dropout's gradient has the mask of its forward") {
  Tensor x = ones({7, 33}, DType::f64);
  x.set_requires_grad();
  Rng rng(3);
  const Tensor y = dropout(x, 0.4, rng);
  CHECK(rng.state().counter == 1);
  backward(y, ones(y.shape(), DType::f64));
  CHECK(same_bits(x.grad(), raw::contiguous(y.detach())));
}

TEST_CASE("dropout with p = 0 is the identity and draws nothing") {
  const Tensor x = param({3});
  Rng rng(3);
  CHECK(dropout(x, 0, rng).shared_impl() == x.shared_impl());
  CHECK(rng.state().counter == 0);
}

TEST_CASE("cast is differentiable between float dtypes only") {
  Tensor x = from_vector<float>({1.5f, 2.5f}, {2});
  x.set_requires_grad();
  backward(sum(square(cast(x, DType::f64))));
  CHECK(x.grad().dtype() == DType::f32);
  CHECK(mismatch(x.grad(), {3, 5}) == "");
  CHECK_THAT(error_of([&] { cast(x, DType::i64); }),
             Catch::Contains("cast: expected float dtypes"));
}

TEST_CASE("floor, sign and isnan give results without history") {
  const Tensor x = param({3});
  for (const Unary op : {Unary::floor, Unary::sign, Unary::isnan}) {
    CHECK_FALSE(needs_grad(unary(op, x)));
  }
  backward(sum(x - unary(Unary::floor, x)));
  CHECK(mismatch(x.grad(), {1, 1, 1}) == "");
}

TEST_CASE("indices that operations return have no history") {
  const Tensor x = param({3, 5});
  CHECK(needs_grad(topk(x, 2).first));
  CHECK_FALSE(needs_grad(topk(x, 2).second));
  CHECK_FALSE(needs_grad(sort(x).second));
}
