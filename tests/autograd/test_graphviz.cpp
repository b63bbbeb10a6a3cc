#include <catch2/catch.hpp>

#include "tests/autograd/cases.h"

using namespace centroid;
using namespace centroid::test;

TEST_CASE("write_dot writes every operation and leaf once, with shapes") {
  TempDir dir;
  const Tensor w = param({4, 3}), x = ones({2, 3}, DType::f64);
  const auto write = [&](const std::string& name) {
    const Tensor h = matmul(x, transpose(w, 0, 1));
    write_dot(sum(h * h), dir / name);
    return read_text(dir / name);
  };
  const std::string text = write("graph.dot");
  CHECK(text ==
        "digraph centroid {\n"
        "  node [fontname=\"sans-serif\"];\n"
        "  n0 [label=\"transpose\\n(3, 4)\"];\n"
        "  n1 [shape=box, label=\"leaf\\nf64 (4, 3)\"];\n"
        "  n1 -> n0 [label=\"(4, 3)\"];\n"
        "  n2 [label=\"matmul\\n(2, 4)\"];\n"
        "  n0 -> n2 [label=\"(3, 4)\"];\n"
        "  n3 [label=\"mul\\n(2, 4)\"];\n"
        "  n2 -> n3 [label=\"(2, 4)\"];\n"
        "  n2 -> n3 [label=\"(2, 4)\"];\n"
        "  n4 [label=\"sum\\n()\"];\n"
        "  n3 -> n4 [label=\"(2, 4)\"];\n"
        "}\n");
  CHECK(write("again.dot") == text);
}

TEST_CASE("write_dot of a tensor without history is one box, and of an undefined one an error") {
  TempDir dir;
  write_dot(ones({2}), dir / "one.dot");
  CHECK_THAT(read_text(dir / "one.dot"), Catch::Contains("label=\"constant\\nf32 (2,)\""));
  CHECK_THAT(error_of([&] { write_dot(Tensor(), dir / "none.dot"); }),
             Catch::Contains("write_dot: expected a tensor"));
  CHECK_THAT(error_of([&] { write_dot(ones({2}), dir / "missing/x.dot"); }),
             Catch::Contains("missing/x.dot"));
}

TEST_CASE("write_dot of a long chain does not recurse", "[host]") {
  TempDir dir;
  Tensor y = param({1});
  for (int i = 0; i < 50000; ++i) y = y + 1.0;
  write_dot(y, dir / "long.dot");
  CHECK_THAT(read_text(dir / "long.dot"), Catch::Contains("n50000 "));
}
