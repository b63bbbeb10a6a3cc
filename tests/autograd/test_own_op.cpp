// The example of docs/your-own-op.md, word for word, and that the page shows what is compiled here.
#include <catch2/catch.hpp>

// [page: operation]
#include "autograd/gradcheck.h"
#include "autograd/ops.h"

using centroid::Grads;
using centroid::Needs;
using centroid::Saved;
using centroid::Tensor;
namespace raw = centroid::raw;

/// Gated linear unit: x (..., n), gate (..., n) or broadcast -> x * sigmoid(gate) (..., n).
/// Source: Dauphin et al., "Language modeling with gated convolutional networks", 2017.
//
// y = x s with s = sigmoid(gate), and s' = s (1 - s):
//   dx    = dy s
//   dgate = dy x s (1 - s) = dx x (1 - s)
// A broadcast input was used several times; its gradient is the sum over the uses (sum_to).
Tensor gated(const Tensor& x, const Tensor& gate) {
  const Tensor s = raw::sigmoid(gate);
  const Tensor y = raw::mul(x, s);
  return centroid::record(
      "gated", y, {x, gate},
      [x = Saved(x), s = Saved(s)](const Tensor& dy, const Needs& needs) -> Grads {
        const Tensor dx = raw::mul(dy, s.get());
        Tensor dgate;
        if (needs[1]) {
          const Tensor closed = raw::add(raw::neg(s.get()), 1);  // 1 - s
          dgate = raw::mul(raw::mul(dx, x.get()), closed);
          dgate = raw::sum_to(dgate, s.get().shape());
        }
        return {needs[0] ? raw::sum_to(dx, x.get().shape()) : Tensor(), dgate};
      });
}
// [end]

// [page: check]
// Empty if the derivative of `gated` is right, else which element is wrong and by how much.
std::string check_gated(const centroid::Shape& shape, const centroid::Shape& gate_shape) {
  centroid::Rng rng(1);
  const auto f64 = centroid::DType::f64;
  Tensor x = raw::normal(shape, rng, 0, 1, f64);
  Tensor gate = raw::normal(gate_shape, rng, 0, 1, f64);
  x.set_requires_grad();
  gate.set_requires_grad();
  const auto f = [](const std::vector<Tensor>& in) {
    return std::vector<Tensor>{gated(in[0], in[1])};
  };
  const centroid::GradcheckReport report = centroid::gradcheck(f, {x, gate});
  return report.ok ? "" : report.message;
}
// [end]

#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;

TEST_CASE("the page's own operation has the right derivative") {
  CHECK(check_gated({3, 5}, {3, 5}) == "");
  CHECK(check_gated({3, 5}, {5}) == "");
  CHECK(check_gated({2, 1, 4}, {3, 1}) == "");
  CHECK(check_gated({1}, {1}) == "");
}

TEST_CASE("the page shows exactly the code that is tested here") {
  const std::filesystem::path root = repository_root();
  const std::string code = read_text(root / "tests" / "autograd" / "test_own_op.cpp");
  const std::string page = read_text(root / "docs" / "your-own-op.md");
  int sections = 0;
  const std::string begin = "// [page: ", end = "// [end]\n";
  for (size_t at = code.find("\n" + begin); at != std::string::npos;
       at = code.find("\n" + begin, at + 1)) {
    const size_t first = code.find('\n', at + 1) + 1;
    const std::string section = code.substr(first, code.find(end, first) - first);
    INFO(section);
    CHECK(page.find("```cpp\n" + section + "```") != std::string::npos);
    ++sections;
  }
  CHECK(sections == 2);
}
