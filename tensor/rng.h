#pragma once
// Counter-based random numbers (Philox 4x32-10; Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). A number depends on (seed, stream, counter) only: not on threads, devices or
// on what other streams have drawn.
#include <cstdint>
#include <string_view>
#include <vector>

namespace centroid {

/// All that is needed to continue a stream; stored in checkpoints.
struct RngState {
  uint64_t key = 0;
  uint64_t counter = 0;
  friend bool operator==(const RngState&, const RngState&) = default;
};

/// A stream of random numbers, keyed by (seed, stream name).
class Rng {
 public:
  explicit Rng(uint64_t seed, std::string_view stream = "");
  explicit Rng(RngState state) : state_(state) {}

  /// An independent stream; depends on this stream's key and `name`, not on its counter.
  Rng fork(std::string_view name) const;
  Rng fork(uint64_t number) const;

  /// Reserves `blocks` Philox blocks for a kernel and returns where they begin.
  RngState reserve(uint64_t blocks);

  uint32_t next();
  double uniform();            ///< in [0, 1), 32 random bits
  double normal();             ///< standard normal
  uint64_t below(uint64_t n);  ///< uniform in [0, n), unbiased; throws if n is 0
  bool bernoulli(double p) { return uniform() < p; }

  /// A uniformly drawn permutation of 0..n-1 (Fisher-Yates).
  std::vector<int64_t> permutation(int64_t n);

  RngState state() const { return state_; }
  void set_state(RngState state) { state_ = state; }

 private:
  RngState state_;  // each scalar draw uses one block: simple, and the state is one number
};

}  // namespace centroid
