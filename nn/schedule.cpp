#include "nn/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "tensor/error.h"

namespace centroid::nn {
namespace {

// The warm-up, then `after` bounded from below.
double warmed(const ScheduleOptions& o, int64_t step, double after) {
  if (step < o.warmup) return o.lr * static_cast<double>(step + 1) / static_cast<double>(o.warmup);
  return std::max(after, o.min_lr);
}

void check_options(const ScheduleOptions& o) {
  const char* kinds[] = {"constant", "cosine", "inv-sqrt", "step", "plateau"};
  CENTROID_CHECK(std::find(std::begin(kinds), std::end(kinds), o.kind) != std::end(kinds),
                 "schedule: kind: expected constant, cosine, inv-sqrt, step or plateau, got '",
                 o.kind, "'");
  CENTROID_CHECK(o.lr >= 0 && std::isfinite(o.lr),
                 "schedule: lr: expected a finite number from 0 up, got ", o.lr);
  CENTROID_CHECK(o.warmup >= 0, "schedule: warmup: expected 0 or more steps, got ", o.warmup);
  CENTROID_CHECK(o.kind != "cosine" || o.steps >= 1,
                 "schedule: steps: cosine needs to know where it ends: expected 1 or more, got ",
                 o.steps);
  CENTROID_CHECK(o.final_ratio >= 0 && o.final_ratio <= 1,
                 "schedule: final_ratio: expected a number in [0, 1], got ", o.final_ratio);
  CENTROID_CHECK(o.step_size >= 1, "schedule: step_size: expected 1 or more, got ", o.step_size);
  CENTROID_CHECK(o.gamma > 0 && o.gamma <= 1, "schedule: gamma: expected a number in (0, 1], got ",
                 o.gamma);
  CENTROID_CHECK(o.patience >= 1, "schedule: patience: expected 1 or more, got ", o.patience);
  CENTROID_CHECK(o.min_lr >= 0 && o.min_lr <= o.lr,
                 "schedule: min_lr: expected a number from 0 to lr = ", o.lr, ", got ", o.min_lr);
}

}  // namespace

double constant_lr(const ScheduleOptions& o, int64_t step) { return warmed(o, step, o.lr); }

double cosine_lr(const ScheduleOptions& o, int64_t step) {
  const int64_t peak = std::max<int64_t>(o.warmup - 1, 0), last = o.steps - 1;
  double progress = 0;
  if (last > peak) {
    progress = static_cast<double>(std::min(step, last) - peak) / static_cast<double>(last - peak);
  }
  const double height = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return warmed(o, step, o.lr * (o.final_ratio + (1 - o.final_ratio) * height));
}

double inv_sqrt_lr(const ScheduleOptions& o, int64_t step) {
  const double warmup = static_cast<double>(std::max<int64_t>(o.warmup, 1));
  return warmed(o, step, o.lr * std::sqrt(warmup / static_cast<double>(step + 1)));
}

double step_lr(const ScheduleOptions& o, int64_t step) {
  const int64_t cuts = std::max<int64_t>(step - o.warmup, 0) / o.step_size;
  return warmed(o, step, o.lr * std::pow(o.gamma, static_cast<double>(cuts)));
}

Schedule::Schedule(const ScheduleOptions& options) : options_(options) { check_options(options_); }

double Schedule::lr(int64_t step) const {
  CENTROID_CHECK(step >= 0, "schedule: step: expected 0 or more, got ", step);
  const std::string& kind = options_.kind;
  if (kind == "cosine") return cosine_lr(options_, step);
  if (kind == "inv-sqrt") return inv_sqrt_lr(options_, step);
  if (kind == "step") return step_lr(options_, step);
  if (kind == "plateau") return warmed(options_, step, options_.lr * state_.factor);
  return constant_lr(options_, step);
}

void Schedule::observe(double metric) {
  if (options_.kind != "plateau") return;
  if (metric < state_.best) {
    state_.best = metric;
    state_.bad = 0;
  } else if (++state_.bad >= options_.patience) {
    state_.factor *= options_.gamma;
    state_.bad = 0;
  }
}

}  // namespace centroid::nn
