#pragma once
// Feature maps of linear attention: the weight of a key is phi(q) . phi(k) instead of exp(q . k).
// Features are at least `eps` > 0, so weights are positive and can be normalised, whatever q and k
// are.
#include "nn/attention.h"

namespace centroid::nn {

/// One of
///
///   elu    phi(x) = elu(x) + 1 (Katharopoulos et al., "Transformers are RNNs", 2020)
///   relu   phi(x) = max(x, 0) (Choromanski et al., "Rethinking attention with performers", 2021)
///   favor  random features w_1 .. w_F ~ N(0, I) whose phi(q) . phi(k) estimates exp(q . k /
///          sqrt(E)) without bias (the same paper, lemma 1), the w orthogonal in blocks of E
///
/// each plus eps.
class FeatureMap {
 public:
  /// Reads `map`, `features` and `eps`; throws for values that mean nothing.
  explicit FeatureMap(const AttentionOptions& options);
  /// The three options, for registration.
  static std::vector<OptionSpec> options();

  /// favor: the w of one call of `attention`, (F, E) f64, a choice named `frequencies`: drawn from
  /// `input.rng` or, without one, from the stream of the module's path. Undefined for other maps.
  Tensor draw(const AttentionInput& input, const Attention& attention) const;
  /// (B, H, L, E) -> (B, H, L, F), each row times a positive number of its own, which cancels.
  Tensor queries(const Tensor& q, const Tensor& frequencies) const;
  /// (B, H, S, E) -> (B, H, S, F). favor cuts features at e^40, which f32 can still add up.
  Tensor keys(const Tensor& k, const Tensor& frequencies) const;

 private:
  enum class Kind { elu, relu, favor };
  Tensor simple(const Tensor& x) const;

  Kind kind_;
  int64_t features_;
  double eps_;
};

/// (F, E) f64: normal vectors, orthogonal within each block of E rows. Their directions are those
/// of normal vectors made orthogonal (Gram-Schmidt), their lengths those of others.
Tensor orthogonal_normals(int64_t count, int64_t width, Rng& rng);

}  // namespace centroid::nn
