// attention-map with several variants: side by side, with their distance from full attention.
#include <catch2/catch.hpp>

#include "tests/apps/process.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

// The width of a PNG file, from its header.
int png_width(const std::string& path) {
  const std::string bytes = read_text(path);
  int width = 0;
  for (int i = 16; i < 20; ++i) width = width * 256 + static_cast<unsigned char>(bytes.at(i));
  return width;
}

struct Setup {
  Setup() {
    const Outcome o = run(dir, "copy",
                          {"train", "--task", "masked", "--length", "24", "--steps", "30", "--out",
                           dir / "model", "--threads", "1"});
    if (o.code != 0) throw Error(o.err);
  }
  Outcome map(const Words& words) const {
    return run(dir, "attention-map",
               Words{"--model", dir / "model", "--out", dir / "map.png", "--threads", "1"} + words);
  }
  TempDir dir;
};

}  // namespace

TEST_CASE("attention-map compares variants on the same queries and keys", "[attention-map]") {
  const Setup setup;
  const Outcome o =
      setup.map({"--attention", "full", "--attention", "clustered:clusters=4", "--attention",
                 "improved-clustered:clusters=4,topk=8", "--attention", "clustered:clusters=24",
                 "--attention", "exact-topk:topk=1", "--json"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  const json result = json::parse(o.out);
  CHECK(result.at("matrices") == 5 * 2 * 4);  // variants, layers, heads
  const json& variants = result.at("variants");
  REQUIRE(variants.size() == 5);
  CHECK(variants[2].at("attention") == "improved-clustered:clusters=4,topk=8");
  const auto mean = [&](int i) { return variants[i].at("row_error_mean").get<double>(); };
  for (const json& v : variants) {
    CHECK(v.at("rows") == 24 * 2 * 4);
    CHECK(v.at("row_error_max").get<double>() >= v.at("row_error_mean").get<double>());
    CHECK(v.at("row_error_max").get<double>() < 2.0001);  // two distributions
    double sum = 0;
    for (const json& matrix : v.at("by_matrix")) {
      CHECK(matrix.at("rows") == 24);
      sum += matrix.at("row_error_mean").get<double>();
    }
    REQUIRE(v.at("by_matrix").size() == 2 * 4);
    CHECK(v.at("by_matrix")[5].at("layer") == 1);
    CHECK(v.at("by_matrix")[5].at("head") == 1);
    CHECK(sum / 8 == Approx(v.at("row_error_mean").get<double>()));
  }
  CHECK(mean(0) == 0);
  CHECK(mean(1) > 1e-3);
  CHECK(mean(2) > 1e-4);
  CHECK(mean(2) < mean(1));  // exact weights on the top keys never make a row worse
  CHECK(mean(3) < 1e-5);     // a cluster for each query is exact
  CHECK(mean(4) > mean(1));  // after so few steps attention is spread over all keys
}

TEST_CASE("attention-map sets variants side by side", "[attention-map]") {
  const Setup setup;
  const Words one = {"--layers", "1", "--heads", "2"};
  REQUIRE(setup.map(one).code == 0);
  const int single = png_width(setup.dir / "map.png");
  const Outcome two = setup.map(one + Words{"--attention", "full", "--attention", "full"});
  REQUIRE(two.code == 0);
  CHECK_THAT(two.out, Contains("2 attention matrices"));
  CHECK_THAT(two.out, Contains("full: the rows of full attention\n"));
  CHECK(png_width(setup.dir / "map.png") > 1.5 * single);
  CHECK_THAT(setup.map({"--attention", "full", "--attention", "clustred"}).err,
             Contains("unknown variant 'clustred'"));
}
