#pragma once
// Learning rates as plain functions of the 0-based step. The warm-up comes first: step s of the
// first `warmup` has (s + 1) / warmup of the peak, so step warmup - 1 is the first at the peak.
#include <cstdint>
#include <string>

namespace centroid::nn {

/// What the schedules are made from.
struct ScheduleOptions {
  std::string kind = "cosine";  ///< constant, cosine, inv-sqrt, step, plateau
  double lr = 1e-3;             ///< the peak
  int64_t warmup = 0;           ///< steps until the peak
  int64_t steps = 0;       ///< cosine: number of steps; the rate stays at its end from the last on
  double final_ratio = 0;  ///< cosine: lr of the last step / peak
  int64_t step_size = 1000;  ///< step: after every so many steps since the warm-up ...
  double gamma = 0.1;        ///< ... the rate is multiplied by this; also plateau's factor
  int64_t patience = 3;      ///< plateau: so many evaluations in a row without improvement cut it
  double min_lr = 0;         ///< lower bound after the warm-up
};

/// The peak, after the warm-up.
double constant_lr(const ScheduleOptions& o, int64_t step);
/// Half a cosine from the peak at the end of the warm-up to `final_ratio` of it at step `steps` - 1
/// (Loshchilov & Hutter, "SGDR", 2017). A warm-up longer than `steps` is legal: no descent then.
double cosine_lr(const ScheduleOptions& o, int64_t step);
/// peak * sqrt(warmup / (step + 1)) after the warm-up (Vaswani et al., 2017); no warm-up counts
/// as 1.
double inv_sqrt_lr(const ScheduleOptions& o, int64_t step);
/// peak * gamma ^ ((step - warmup) / step_size), integer division, after the warm-up.
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
  /// Throws for an unknown kind, listing the known ones, and for options out of range.
  explicit Schedule(const ScheduleOptions& options);
  /// The rate of step `step` >= 0.
  double lr(int64_t step) const;
  /// Reports an evaluation (smaller is better; NaN is no improvement); only plateau listens: after
  /// `patience` evaluations in a row that are not below the best, the rate is multiplied by
  /// `gamma`.
  void observe(double metric);
  const PlateauState& state() const { return state_; }
  void set_state(const PlateauState& state) { state_ = state; }

 private:
  ScheduleOptions options_;
  PlateauState state_;
};

}  // namespace centroid::nn
