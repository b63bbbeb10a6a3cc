// The program `bench` as a user runs it: what it checks, prints and writes. Nothing here depends on
// how long anything takes.
#include <catch2/catch.hpp>

#include "nn/attention.h"
#include "tests/apps/process.h"

using namespace centroid;
using Catch::Matchers::Contains;
using Json = nlohmann::ordered_json;
using test::Outcome;
using test::Words;
using test::operator+;

namespace {

// Small enough for all variants: lengths that no tile divides.
const Words kTiny = {"attention", "--tokens", "66", "--heads",   "2", "--head-size",
                     "8",         "--rounds", "2",  "--threads", "1"};

Outcome bench(const test::TempDir& dir, const Words& arguments) {
  return test::run(dir, "bench", arguments);
}

Json bench_json(const test::TempDir& dir, const Words& arguments) {
  const Outcome o = bench(dir, arguments + Words{"--json"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  return Json::parse(o.out);
}

std::vector<std::string> names(const Json& rows) {
  std::vector<std::string> all;
  for (const Json& row : rows) all.push_back(row.at("variant"));
  return all;
}

const Json& row_of(const Json& rows, const std::string& variant) {
  for (const Json& row : rows) {
    if (row.at("variant") == variant) return row;
  }
  throw Error("test: no row for " + variant);
}

}  // namespace

TEST_CASE("bench attention runs every registered variant, or says why not", "[bench]") {
  const test::TempDir dir;
  for (const bool causal : {false, true}) {
    const Json report =
        bench_json(dir, kTiny + Words{"--lengths", "33", causal ? "--causal" : "--no-causal"});
    const std::vector<std::string> timed = names(report.at("results"));
    CHECK(timed.at(0) == "full");
    CHECK(names(report.at("variants")) == timed);
    CHECK(names(report.at("checks")) == timed);
    for (const std::string& name : nn::attention_names()) {
      const nn::Capabilities can = nn::make_attention(name)->capabilities();
      const bool runs = causal ? can.causal : !can.causal_only;
      INFO(name);
      CHECK(std::count(timed.begin(), timed.end(), name) == runs);
      CHECK((report.at("notes").dump().find("\"" + name + " is left out") != std::string::npos) ==
            !runs);
    }
  }
}

TEST_CASE("bench attention reports times, speed, memory and checks of each case", "[bench]") {
  const test::TempDir dir;
  const Json report = bench_json(dir, kTiny + Words{"--lengths", "100,33", "--variants", "full"});
  REQUIRE(report.at("results").size() == 2);
  const int64_t lengths[] = {33, 100}, batches[] = {2, 1};  // 66 tokens; batch 1 beyond
  for (size_t i = 0; i < 2; ++i) {
    const Json& row = report.at("results")[i];
    CHECK(row.at("length") == lengths[i]);
    CHECK(row.at("batch") == batches[i]);
    for (const std::string direction : {"forward", "forward_backward"}) {
      const double ms = row.at(direction + "_ms");
      const double tokens = static_cast<double>(lengths[i] * batches[i]);
      CHECK(ms > 0);
      CHECK(row.at(direction + "_us_per_token").get<double>() == Approx(ms * 1e3 / tokens));
      CHECK(row.at(direction + "_speedup") == 1.0);
      CHECK(row.at(direction + "_extra_memory") >= 0.0);
      CHECK(row.at(direction + "_gflops") > 0.0);
    }
    const double products =
        row.at("forward_backward_gflops").get<double>() / row.at("forward_gflops").get<double>() *
        row.at("forward_backward_ms").get<double>() / row.at("forward_ms").get<double>();
    CHECK(products == Approx(3.5));  // 7 products against 2
  }
  const Json& check = report.at("checks")[0];
  // Two precisions differ, and by no more than rounding.
  CHECK(check.at("output_error") > 0.0);
  CHECK(check.at("output_error") < 2e-5);
  CHECK(check.at("gradient_error") > 0.0);
  CHECK(check.at("gradient_error") < 1e-4);
  CHECK(check.at("exact_error") < 1e-9);
  CHECK(report.at("peak_gflops") > 0.0);
  CHECK(report.at("threads") == 1);
  CHECK(report.at("rounds") == 2);
}

TEST_CASE("bench attention: options go to the variants that have them", "[bench]") {
  const test::TempDir dir;
  const Json report =
      bench_json(dir, kTiny + Words{"--lengths", "33", "--no-check", "--clusters", "7", "--topk",
                                    "5", "--variants",
                                    "full:temperature=0.5,dropout=0.1,improved-clustered,"
                                    "conditional-full:limit=9(clustered:clusters=3,bits=8)"});
  const Json& variants = report.at("variants");
  CHECK(names(variants) ==
        std::vector<std::string>{"full:temperature=0.5,dropout=0.1", "improved-clustered",
                                 "conditional-full:limit=9(clustered:clusters=3,bits=8)"});
  CHECK(report.at("checks").empty());
  CHECK_THAT(row_of(variants, "improved-clustered").at("spec").get<std::string>(),
             Contains("clusters=7") && Contains("topk=5") && Contains("bits=63") &&
                 Contains("iterations=10"));
  for (const std::string given : {"full:temperature=0.5,dropout=0.1",
                                  "conditional-full:limit=9(clustered:clusters=3,bits=8)"}) {
    CHECK(row_of(variants, given).at("spec") == given);
  }
  // Without `full` itself there is nothing to be faster than.
  CHECK(report.at("results")[0].at("forward_speedup").is_null());
  CHECK(variants[0].at("forward_faster_from").is_null());
}

TEST_CASE("bench attention writes its report into a folder", "[bench]") {
  const test::TempDir dir;
  const std::string folder = dir / "new/report";
  const Outcome o =
      bench(dir, kTiny + Words{"--lengths", "16,33", "--variants", "full,local", "--out", folder});
  INFO(o.err);
  REQUIRE(o.code == 0);
  CHECK_THAT(o.out, Contains("ms fwd+bwd") && Contains("local") && Contains("GFLOP/s"));
  CHECK_THAT(test::read_text(folder + "/attention.md"), Contains("| local"));
  CHECK(names(Json::parse(test::read_text(folder + "/attention.json")).at("results")) ==
        std::vector<std::string>{"full", "local", "full", "local"});
#ifdef CENTROID_HAVE_STB
  CHECK(test::read_text(folder + "/attention.png").substr(1, 3) == "PNG");
#endif
  std::ofstream(dir / "file") << "in the way";
  const Outcome blocked = bench(
      dir, kTiny + Words{"--lengths", "16", "--variants", "full", "--out", dir / "file/report"});
  CHECK(blocked.code == 1);
  CHECK_THAT(blocked.err, Contains("cannot create the folder"));
}

TEST_CASE("bench attention names bad variants and options", "[bench]") {
  const test::TempDir dir;
  const auto error_of = [&](const Words& arguments, int code) {
    const Outcome o = bench(dir, kTiny + Words{"--lengths", "16"} + arguments);
    CHECK(o.code == code);
    CHECK(o.out.empty());
    return o.err;
  };
  CHECK_THAT(error_of({"--variants", "full,ful"}, 1), Contains("unknown variant 'ful'"));
  CHECK_THAT(error_of({"--variants", "full,full"}, 1), Contains("names full twice"));
  CHECK_THAT(error_of({"--variants", "clustered", "--bits", "65"}, 1), Contains("option bits"));
  CHECK_THAT(error_of({"--lengths", "0"}, 2), Contains("--lengths"));
  CHECK_THAT(error_of({"--length", "16"}, 2), Contains("nearest: --lengths"));
}
