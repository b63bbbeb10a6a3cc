// Linear attention (Katharopoulos et al., "Transformers are RNNs", 2020): with phi(q) . phi(k) as
// the weight of a key, the sums over the keys can be taken first,
//
//   out = phi(q) (sum_s phi(k_s) v_s^T) / (phi(q) . sum_s phi(k_s))
//
// and time and memory grow with L + S. A value carries a 1 behind its numbers throughout: what
// comes out behind the weighted values is then the normaliser.
#include <algorithm>

#include "autograd/ops.h"
#include "nn/attention/feature_maps.h"
#include "nn/decode.h"
#include "nn/layers.h"

namespace centroid::nn {

namespace {

// (B, H, S, D) -> (B, H, S, D + 1)
Tensor with_ones(const Tensor& v) { return pad(v, 3, 0, 1, 1); }

// Weighted values and normalisers (B, H, L, D + 1) -> their ratio (B, H, L, D). Items without keys
// have 0 / 0, which becomes 0 / 1.
Tensor normalised(const Tensor& sums, const Lengths& q_lengths, const Lengths& k_lengths) {
  const int64_t width = sums.size(3) - 1;
  Tensor mass = slice(sums, 3, width, width + 1);
  const std::vector<int64_t>& keys = k_lengths.values();
  if (std::find(keys.begin(), keys.end(), 0) != keys.end()) {
    const Tensor none = raw::compare(Compare::eq, k_lengths.tensor(sums.device()), 0.0);
    mass = mass + raw::cast(raw::reshape(none, {sums.size(0), 1, 1, 1}), sums.dtype());
  }
  return heads_last(mask_padding(slice(sums, 3, 0, width) / mass, q_lengths, 2));
}

// (n, n): 1 where column <= row
Tensor lower_triangle(int64_t n, const Tensor& like) {
  const Tensor at = arange(n, DType::i64, like.device());
  return raw::cast(raw::compare(Compare::ge, raw::unsqueeze(at, 1), at), like.dtype());
}

// x (B, H, T, n) -> (B, H, blocks, block, n): its first blocks * block positions, zeros where there
// are fewer.
Tensor in_blocks(const Tensor& x, int64_t time, int64_t block) {
  const int64_t blocks = (time + block - 1) / block, kept = std::min(x.size(2), time);
  Tensor y = kept < x.size(2) ? slice(x, 2, 0, kept) : x;
  if (kept < blocks * block) y = pad(y, 2, 0, blocks * block - kept);
  return reshape(y, {x.size(0), x.size(1), blocks, block, x.size(3)});
}

// Row l of the result is sum over s <= l of (q_l . k_s) v_s, for features q (B, H, L, F), k (B, H,
// S, F) and values v (B, H, S, D + 1) -> (B, H, L, D + 1). Positions are cut into blocks: inside
// one, the products are formed and those with s > l struck out; for all blocks before it one matrix
// (F, D + 1) stands. Memory O(L (block + F (D + 1) / block)).
Tensor causal_sums(const Tensor& q, const Tensor& k, const Tensor& v) {
  constexpr int64_t kBlock = 64;
  const int64_t time = q.size(2), block = std::min(kBlock, time);
  const Tensor queries = in_blocks(q, time, block), keys = in_blocks(k, time, block);
  const Tensor values = in_blocks(v, time, block);
  const int64_t blocks = queries.size(2);
  const Tensor keys_t = transpose(keys, 3, 4);  // (B, H, blocks, F, block)
  Tensor sums = matmul(matmul(queries, keys_t) * lower_triangle(block, q), values);
  if (blocks > 1) {
    const Tensor until = slice(cumsum(matmul(keys_t, values), 2), 2, 0, blocks - 1);
    sums = sums + matmul(queries, pad(until, 2, 1, 0));
  }
  return slice(reshape(sums, {q.size(0), q.size(1), blocks * block, v.size(3)}), 2, 0, time);
}

class LinearAttention : public Attention {
 public:
  explicit LinearAttention(const AttentionOptions& options) : map_(options) {}

  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), name());
    const Tensor frequencies = map_.draw(input, *this);
    const Tensor queries = map_.queries(input.q, frequencies);
    const Tensor keys = mask_padding(map_.keys(input.k, frequencies), input.k_lengths, 2);
    const Tensor values = with_ones(input.v);
    const Tensor sums = input.causal ? causal_sums(queries, keys, values)
                                     : matmul(queries, matmul(transpose(keys, 2, 3), values));
    return normalised(sums, input.q_lengths, input.k_lengths);
  }

  Capabilities capabilities() const override {
    return {.cross = true,
            .key_order_invariant = true,
            .exact_options = "-",
            .test_options = {"map=relu", "map=favor,features=9"}};
  }

 protected:
  virtual const char* name() const { return "linear"; }

  FeatureMap map_;
};

// The same, and causal too when asked to.
class CausalLinearAttention : public LinearAttention {
 public:
  using LinearAttention::LinearAttention;

  Capabilities capabilities() const override {
    Capabilities can = LinearAttention::capabilities();
    can.causal = true;
    return can;
  }

  std::unique_ptr<DecodeState> start_decoding() const override { return std::make_unique<Sums>(); }

  // The recurrence S_t = S_(t-1) + phi(k_t) [v_t, 1]^T: a step costs the same however many there
  // were.
  Tensor step(DecodeState& state, const AttentionInput& input) override {
    check_step_input(input, capabilities(), name());
    Sums& past = state_as<Sums>(state, name());
    const NoGrad off;
    const bool first = !past.sums.defined();
    if (first) past.frequencies = map_.draw(input, *this);
    const Tensor keys = map_.keys(input.k, past.frequencies);
    const Tensor news = matmul(transpose(keys, 2, 3), with_ones(input.v));
    if (first) {
      past.sums = news;
    } else {
      CENTROID_CHECK(news.shape() == past.sums.shape() && news.dtype() == past.sums.dtype(), name(),
                     ": step: expected the sizes of the steps before, got q ", input.q.shape(),
                     " and v ", input.v.shape());
      raw::add_(past.sums, news);
    }
    return normalised(matmul(map_.queries(input.q, past.frequencies), past.sums), {}, {});
  }

 private:
  struct Sums : DecodeState {
    Tensor frequencies, sums;  // (F, E), (B, H, F, D + 1)
  };

  const char* name() const override { return "causal-linear"; }
};

const RegisterAttention kLinear{
    "linear", "phi(q) (phi(k)^T v), normalised; time and memory grow with L + S",
    FeatureMap::options(),
    [](const AttentionOptions& options) { return std::make_unique<LinearAttention>(options); }};

const RegisterAttention kCausalLinear{
    "causal-linear",
    "linear, also causal: in blocks in training, as a recurrence of fixed size in generation",
    FeatureMap::options(), [](const AttentionOptions& options) {
      return std::make_unique<CausalLinearAttention>(options);
    }};

}  // namespace

}  // namespace centroid::nn
