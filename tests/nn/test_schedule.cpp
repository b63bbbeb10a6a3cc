// Learning rates by step.
#include <catch2/catch.hpp>
#include <cmath>

#include "nn/schedule.h"
#include "tensor/error.h"

using namespace centroid::nn;
using Catch::Matchers::Contains;

namespace {

ScheduleOptions make(const std::string& kind, int64_t warmup = 0) {
  ScheduleOptions o;
  o.kind = kind;
  o.lr = 2;
  o.warmup = warmup;
  o.steps = 100;
  return o;
}

}  // namespace

TEST_CASE("every schedule warms up linearly and meets its peak at step warmup - 1", "[schedule]") {
  for (const char* kind : {"constant", "cosine", "inv-sqrt", "step", "plateau"}) {
    INFO(kind);
    const Schedule schedule(make(kind, 4));
    CHECK(schedule.lr(0) == 0.5);
    CHECK(schedule.lr(1) == 1.0);
    CHECK(schedule.lr(2) == 1.5);
    CHECK(schedule.lr(3) == 2.0);
    CHECK(schedule.lr(4) <= 2.0);
    CHECK(Schedule(make(kind, 1)).lr(0) == 2.0);
    CHECK(Schedule(make(kind, 0)).lr(0) == 2.0);
  }
}

TEST_CASE("cosine: half way down in the middle, the final ratio at the last step", "[schedule]") {
  ScheduleOptions o = make("cosine", 11);
  o.steps = 111;  // peak: step 10, middle: 60, last: 110
  o.final_ratio = 0.1;
  CHECK(cosine_lr(o, 10) == 2.0);
  CHECK(cosine_lr(o, 60) == Approx(2 * (0.1 + 0.9 * 0.5)));
  CHECK(cosine_lr(o, 35) == Approx(2 * (0.1 + 0.9 * 0.5 * (1 + std::sqrt(0.5)))));
  CHECK(cosine_lr(o, 110) == Approx(0.2));
  CHECK(cosine_lr(o, 100000) == Approx(0.2));
  o.min_lr = 0.5;
  CHECK(cosine_lr(o, 110) == 0.5);
  CHECK(cosine_lr(o, 0) == Approx(2.0 / 11));  // the floor does not lift the warm-up
}

TEST_CASE("cosine: degenerate lengths are defined", "[schedule]") {
  ScheduleOptions o = make("cosine", 0);
  o.steps = 1;
  CHECK(cosine_lr(o, 0) == 2.0);
  o = make("cosine", 500);
  CHECK(cosine_lr(o, 99) == Approx(2 * 100.0 / 500));
  CHECK(cosine_lr(o, 600) == 2.0);
}

TEST_CASE("inverse square root: continuous at the warm-up, halves at four times it", "[schedule]") {
  const ScheduleOptions o = make("inv-sqrt", 10);
  CHECK(inv_sqrt_lr(o, 9) == 2.0);
  CHECK(inv_sqrt_lr(o, 10) == Approx(2 * std::sqrt(10.0 / 11)));
  CHECK(inv_sqrt_lr(o, 39) == Approx(1.0));
  CHECK(inv_sqrt_lr(make("inv-sqrt"), 3) == Approx(1.0));
}

TEST_CASE("step: cuts after every step_size steps since the warm-up", "[schedule]") {
  ScheduleOptions o = make("step", 5);
  o.step_size = 10;
  o.gamma = 0.5;
  CHECK(step_lr(o, 14) == 2.0);
  CHECK(step_lr(o, 15) == 1.0);
  CHECK(step_lr(o, 24) == 1.0);
  CHECK(step_lr(o, 25) == 0.5);
  o.min_lr = 0.75;
  CHECK(step_lr(o, 1000) == 0.75);
}

TEST_CASE("plateau: cuts after `patience` evaluations without improvement", "[schedule]") {
  ScheduleOptions o = make("plateau");
  o.patience = 2;
  o.gamma = 0.5;
  o.min_lr = 0.4;
  Schedule schedule(o);
  const auto after = [&](double metric) {
    schedule.observe(metric);
    return schedule.lr(7);
  };
  CHECK(after(3.0) == 2.0);
  CHECK(after(3.0) == 2.0);  // equal is no improvement: one bad
  CHECK(after(2.0) == 2.0);  // improvement clears it
  CHECK(after(2.5) == 2.0);  // one
  CHECK(after(NAN) == 1.0);  // two
  CHECK(after(2.1) == 1.0);  // counting starts again
  Schedule resumed(o);
  resumed.set_state(schedule.state());
  resumed.observe(2.1);
  CHECK(resumed.lr(7) == 0.5);
  CHECK(after(2.1) == 0.5);
  CHECK(after(2.1) == 0.5);
  CHECK(after(2.1) == 0.4);  // 0.25, but not below min_lr
}

TEST_CASE("only plateau listens to evaluations", "[schedule]") {
  Schedule schedule(make("constant"));
  for (int i = 0; i < 10; ++i) schedule.observe(1);
  CHECK(schedule.lr(0) == 2.0);
  CHECK(schedule.state().bad == 0);
}

TEST_CASE("wrong schedule options name the option", "[schedule]") {
  const auto changed = [](auto change) {
    ScheduleOptions o = make("cosine");
    change(o);
    return [o] { Schedule schedule(o); };
  };
  CHECK_THROWS_WITH(changed([](auto& o) { o.kind = "cosin"; })(),
                    Contains("expected constant, cosine, inv-sqrt, step or plateau, got 'cosin'"));
  CHECK_THROWS_WITH(changed([](auto& o) { o.steps = 0; })(), Contains("steps"));
  CHECK_THROWS_WITH(changed([](auto& o) { o.lr = NAN; })(), Contains("lr"));
  CHECK_THROWS_WITH(changed([](auto& o) { o.warmup = -1; })(), Contains("warmup"));
  CHECK_THROWS_WITH(changed([](auto& o) { o.gamma = 0; })(), Contains("gamma"));
  CHECK_THROWS_WITH(changed([](auto& o) { o.final_ratio = 2; })(), Contains("final_ratio"));
  CHECK_THROWS_WITH(changed([](auto& o) { o.step_size = 0; })(), Contains("step_size"));
  CHECK_THROWS_WITH(changed([](auto& o) { o.patience = 0; })(), Contains("patience"));
  CHECK_THROWS_WITH(changed([](auto& o) { o.min_lr = 3; })(), Contains("min_lr"));
  CHECK_THROWS_WITH(Schedule(make("constant")).lr(-1), Contains("step"));
}
