#pragma once
// Learning rates as plain functions of the step (0-based); `warmup` steps rise linearly first.
#include <cstdint>
#include <string>

namespace centroid::nn {

struct ScheduleOptions {
  std::string kind = "cosine";  ///< constant, cosine, inv-sqrt, step, plateau
  double lr = 1e-3;             ///< the peak
  int64_t warmup = 0;
  int64_t steps = 0;         ///< cosine: where it ends
  double final_ratio = 0;    ///< cosine: last lr / peak
  int64_t step_size = 1000;  ///< step: every so many steps ...
  double gamma = 0.1;        ///< ... the rate is multiplied by this; also plateau's factor
  int64_t patience = 3;      ///< plateau: evaluations without improvement before a cut
  double min_lr = 0;
};

double constant_lr(const ScheduleOptions& o, int64_t step);
double cosine_lr(const ScheduleOptions& o, int64_t step);
double inv_sqrt_lr(const ScheduleOptions& o, int64_t step);
double step_lr(const ScheduleOptions& o, int64_t step);

/// Plateau's memory: what a resumed run needs.
struct PlateauState {
  double best = 1e300;
  int64_t bad = 0;
  double factor = 1;
};

/// The chosen schedule, with plateau's state.
class Schedule {
 public:
  explicit Schedule(const ScheduleOptions& options);  ///< throws for an unknown kind
  double lr(int64_t step) const;
  /// Reports an evaluation (smaller is better); only plateau listens.
  void observe(double metric);
  const PlateauState& state() const { return state_; }
  void set_state(const PlateauState& state) { state_ = state; }

 private:
  ScheduleOptions options_;
  PlateauState state_;
};

}  // namespace centroid::nn
