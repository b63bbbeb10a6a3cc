#include "nn/attention/feature_maps.h"

#include <algorithm>
#include <cmath>

#include "autograd/ops.h"
#include "nn/attention/common.h"
#include "nn/names.h"

namespace centroid::nn {

namespace {

const std::vector<std::string> kMaps = {"elu", "relu", "favor"};

// What favor's exponent is kept in. e^-1000 is 0 in any precision.
constexpr double kLowest = -1000, kHighest = 40;

// (..., E) -> w . x / E^(1/4) for each frequency w: (..., F). The root makes the product of a
// query's and a key's exponents that of q . k / sqrt(E).
Tensor project(const Tensor& x, const Tensor& frequencies) {
  const double scale = std::pow(static_cast<double>(x.size(-1)), -0.25);
  const Tensor w = raw::cast(raw::to(frequencies, x.device()), x.dtype());
  return matmul(x, raw::transpose(raw::mul(w, scale), 0, 1));
}

double dot(const double* a, const double* b, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += a[i] * b[i];
  return total;
}

}  // namespace

Tensor orthogonal_normals(int64_t count, int64_t width, Rng& rng) {
  CENTROID_CHECK(count >= 1 && width >= 1, "orthogonal normals: expected sizes of at least 1, got ",
                 count, " x ", width);
  const Tensor rows = raw::normal({count, width}, rng, 0, 1, DType::f64, Device{});
  const Tensor others = raw::normal({count, width}, rng, 0, 1, DType::f64, Device{});
  double* x = rows.data<double>();
  // What a row has in common with those before it in its block is taken away; rows are unit vectors
  // from then on.
  for (int64_t r = 0; r < count; ++r) {
    double* row = x + r * width;
    for (int64_t s = r - r % width; s < r; ++s) {
      const double common = dot(row, x + s * width, width);
      for (int64_t i = 0; i < width; ++i) row[i] -= common * x[s * width + i];
    }
    const double length = std::sqrt(dot(row, row, width));
    for (int64_t i = 0; i < width; ++i) row[i] /= length;
  }
  return raw::mul(rows, raw::pow(raw::sum(raw::square(others), {1}, true), 0.5));
}

FeatureMap::FeatureMap(const AttentionOptions& options)
    : features_(options.integer("features", 1, 65536)), eps_(options.number("eps", 0, 1)) {
  const std::string& name = options.text("map");
  const auto found = std::find(kMaps.begin(), kMaps.end(), name);
  CENTROID_CHECK(found != kMaps.end(), "linear attention: map: expected one of ",
                 nearest_first(kMaps, name), ", got '", name, "'");
  kind_ = static_cast<Kind>(found - kMaps.begin());
  // The smallest normaliser is the eps of a query times that of a key; f32 has to hold its inverse.
  // favor's queries have a feature of 1, and its keys may be e^-40 and still mean something.
  constexpr double kDefaults[] = {1e-6, 1e-3, 1e-20};
  if (eps_ == 0) eps_ = kDefaults[static_cast<size_t>(kind_)];
  const double least = kind_ == Kind::favor ? 1e-30 : 1e-15;
  CENTROID_CHECK(eps_ >= least, "linear attention: eps: expected 0 or at least ", least,
                 " with map=", name, ", got ", eps_);
}

std::vector<OptionSpec> FeatureMap::options() {
  return {{"map", "elu", "features of a query or key x: elu (elu(x) + 1), relu, or favor (random)"},
          {"features", "256", "favor: how many"},
          {"eps", "0", "added to every feature; 0: 1e-6 (elu), 1e-3 (relu), 1e-20 (favor)"}};
}

Tensor FeatureMap::draw(const AttentionInput& input, const Attention& attention) const {
  if (kind_ != Kind::favor) return {};
  Rng rng = choice_stream(input, attention);
  const int64_t width = input.q.size(3);
  return choice(input, "frequencies", [&] { return orthogonal_normals(features_, width, rng); });
}

Tensor FeatureMap::simple(const Tensor& x) const {
  return kind_ == Kind::elu ? elu(x) + (1 + eps_) : relu(x) + eps_;
}

// favor. For w ~ N(0, I), E[exp(w . s)] = exp(|s|^2 / 2); with s = q + k (both divided by E^(1/4)):
//
//   exp(q . k) = exp(-|q|^2 / 2 - |k|^2 / 2) E[exp(w . q) exp(w . k)]
//
// so phi(x) = exp(w . x - |x|^2 / 2) over many w does it. Factors that all features of a query
// share cancel when its weights are normalised: exp(-|q|^2 / 2) is left out, and the largest
// exponent is taken away, which keeps f32 in range. Nothing of the kind is done across keys: a
// causal result must not hear of later ones.
Tensor FeatureMap::queries(const Tensor& q, const Tensor& frequencies) const {
  if (kind_ != Kind::favor) return simple(q);
  const Tensor exponents = project(q, frequencies);
  return exp(exponents - max(exponents, {-1}, true)) + eps_;
}

Tensor FeatureMap::keys(const Tensor& k, const Tensor& frequencies) const {
  if (kind_ != Kind::favor) return simple(k);
  const double half = 0.5 / std::sqrt(static_cast<double>(k.size(3)));
  const Tensor exponents = project(k, frequencies) - sum(square(k), {-1}, true) * half;
  return exp(clamp(exponents, kLowest, kHighest)) + eps_;
}

}  // namespace centroid::nn
