// Attention strings, options, help, and the examples of nn/attention/README.md.
#include <catch2/catch.hpp>
#include <set>

#include "autograd/ops.h"
#include "nn/attention.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

// A decorator that does nothing but read every kind of option.
class Wrapper : public Attention {
 public:
  explicit Wrapper(const AttentionOptions& options)
      : inner(make_attention(options.inner())),
        limit(options.integer("limit", 0, 1000)),
        flag(options.flag("flag")),
        text(options.text("text")) {
    add_module("inner", *inner);
  }
  Tensor attend(const AttentionInput& input) override { return inner->attend(input); }
  Capabilities capabilities() const override {
    Capabilities can = inner->capabilities();
    can.test_options.clear();  // they are the inner variant's
    return can;
  }
  std::unique_ptr<Attention> inner;
  int64_t limit;
  bool flag;
  std::string text;
};

const RegisterAttention kWrapper{
    "test-wrapper",
    "passes everything on",
    {{"limit", "7", "a number"},
     {"flag", "false", "a flag"},
     {"text", "x", "a text"},
     {"inner", "full:dropout=0.5", "what to wrap"}},
    [](const AttentionOptions& options) { return std::make_unique<Wrapper>(options); }};

Wrapper& wrapper(const std::unique_ptr<Attention>& attention) {
  return dynamic_cast<Wrapper&>(*attention);
}

std::string problem(const std::string& spec) {
  return error_of([&] { make_attention(spec); });
}

}  // namespace

TEST_CASE("the expected attention variants are registered") {
  const std::vector<std::string> names = attention_names();
  const std::set<std::string> found(names.begin(), names.end());
  for (const char* expected :
       {"full", "clustered", "improved-clustered", "causal-improved-clustered", "reformer",
        "exact-topk", "linear", "causal-linear", "local", "conditional-full", "smyrf", "multipole",
        "local-clustered"}) {
    INFO(expected);
    CHECK(found.contains(expected));
  }
  CHECK(std::is_sorted(names.begin(), names.end()));
}

TEST_CASE("attention strings: names, options, nesting") {
  CHECK(wrapper(make_attention("test-wrapper")).limit == 7);
  const auto outer = make_attention("test-wrapper:limit=8,flag=true(test-wrapper:text=y(full))");
  CHECK(wrapper(outer).limit == 8);
  CHECK(wrapper(outer).flag);
  CHECK(wrapper(outer).text == "x");
  CHECK(wrapper(wrapper(outer).inner).text == "y");
  CHECK(wrapper(make_attention("test-wrapper(full)")).inner->capabilities().causal);
}

TEST_CASE("attention strings: unknown names and options list the valid ones, the nearest first") {
  CHECK_THAT(problem("fulll"), Contains("unknown variant 'fulll': expected one of full, "));
  CHECK_THAT(problem("full:temprature=1"),
             Contains("full has no option 'temprature': expected one of temperature, dropout"));
  CHECK_THAT(problem("test-wrapper:inner=full"),
             Contains("write the inner variant in parentheses"));
  CHECK_THAT(problem("full(full)"), Contains("takes no variant in parentheses"));
  CHECK_THAT(problem("test-wrapper(ful)"), Contains("unknown variant 'ful'"));
}

TEST_CASE("attention strings: what cannot be read is said") {
  CHECK_THAT(problem(""), Contains("name is missing"));
  CHECK_THAT(problem(":a=1"), Contains("name is missing"));
  CHECK_THAT(problem("full:"), Contains("expected option=value, got ''"));
  CHECK_THAT(problem("full:dropout"), Contains("expected option=value, got 'dropout'"));
  CHECK_THAT(problem("full:dropout="), Contains("expected option=value, got 'dropout='"));
  CHECK_THAT(problem("full:dropout=0.1,"), Contains("expected option=value, got ''"));
  CHECK_THAT(problem("full:dropout=0.1,dropout=0.2"), Contains("dropout is given twice"));
  CHECK_THAT(problem("test-wrapper(full"), Contains("not closed"));
  CHECK_THAT(problem("test-wrapper()"), Contains("nothing between"));
  CHECK_THAT(problem("test-wrapper(full)x"), Contains("not closed at the end"));
  CHECK_THAT(problem("full)"), Contains("was not opened"));
  CHECK_THAT(problem("full "), Contains("unknown variant 'full '"));
}

TEST_CASE("attention options: a wrong value names variant, option and range") {
  CHECK_THAT(problem("full:dropout=1.5"),
             Contains("attention full: option dropout: expected a number in [0, 0.99], got '1.5'"));
  CHECK_THAT(problem("full:dropout=nan"), Contains("got 'nan'"));
  for (const char* name : {"clustered", "improved-clustered", "local-clustered"}) {
    CHECK_THAT(problem(concat(name, ":clusters=2.5")), Contains("a fraction of the length"));
  }
  CHECK_THAT(problem("full:dropout=0.1x"), Contains("got '0.1x'"));
  CHECK_THAT(problem("test-wrapper:limit=1.5"), Contains("a whole number in [0, 1000], got '1.5'"));
  CHECK_THAT(problem("test-wrapper:limit=99999999999999999999"), Contains("option limit"));
  CHECK_THAT(problem("test-wrapper:flag=yes"), Contains("expected true or false, got 'yes'"));
}

TEST_CASE("attention help shows every variant, option and default") {
  const std::string help = attention_help();
  for (const std::string& name : attention_names()) CHECK_THAT(help, Contains(name + "\n"));
  CHECK_THAT(help, Contains("dropout=0 ") && Contains("temperature=0 "));
  CHECK_THAT(help, Contains("limit=7 ") && Contains("(full:dropout=0.5)"));
}

TEST_CASE("the variants that nn/attention/README.md shows are those that these tests run") {
  const std::string readme = read_text(repository_root() / "nn/attention/README.md");
  for (const char* file : {"example_attention.cpp", "example_cluster_topk.cpp"}) {
    const std::string code = read_text(repository_root() / "tests/nn" / file);
    CHECK_THAT(readme, Contains("```cpp\n" + code + "```"));
  }
  for (const char* name : {"cosine", "cluster-topk"}) {
    CHECK(make_attention(name)->capabilities().key_order_invariant);
  }
}
