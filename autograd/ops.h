#pragma once
// Differentiable operations: the raw ones (tensor/ops.h, where shapes and conventions are
// documented) with history. What has no derivative (comparisons, argmax, one-hot, ...) exists only
// as raw::.
#include "autograd/node.h"

namespace centroid {

// ---- pointwise (ops_pointwise.cpp), broadcasting --------------------------------------------
Tensor operator+(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& a, const Tensor& b);
Tensor operator*(const Tensor& a, const Tensor& b);
Tensor operator/(const Tensor& a, const Tensor& b);
Tensor operator-(const Tensor& x);
Tensor operator+(const Tensor& x, double a);
Tensor operator+(double a, const Tensor& x);
Tensor operator-(const Tensor& x, double a);
Tensor operator-(double a, const Tensor& x);
Tensor operator*(const Tensor& x, double a);
Tensor operator*(double a, const Tensor& x);
Tensor operator/(const Tensor& x, double a);
Tensor operator/(double a, const Tensor& x);
Tensor pow(const Tensor& a, const Tensor& b);
Tensor pow(const Tensor& x, double a);
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor maximum(const Tensor& a, const Tensor& b);
Tensor clamp(const Tensor& x, double low, double high);
/// condition (u8) ? a : b
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
/// Any of the elementwise functions by its name in the enum; the named forms below call it. The
/// derivative of floor, sign and isnan is zero wherever it exists: their results have no history.
Tensor unary(Unary op, const Tensor& x, double a = 0, double b = 0);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor rsqrt(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor relu(const Tensor& x);
Tensor gelu(const Tensor& x);
Tensor elu(const Tensor& x);
Tensor silu(const Tensor& x);
Tensor softplus(const Tensor& x);
Tensor abs(const Tensor& x);
Tensor sin(const Tensor& x);
Tensor cos(const Tensor& x);
Tensor square(const Tensor& x);
Tensor cast(const Tensor& x, DType dtype);  ///< between float dtypes

// ---- shape (ops_shape.cpp) --------------------------------------------------------------------
Tensor transpose(const Tensor& x, int dim0, int dim1);
Tensor permute(const Tensor& x, const Dims& order);
Tensor slice(const Tensor& x, int dim, int64_t begin, int64_t end, int64_t step = 1);
Tensor select(const Tensor& x, int dim, int64_t index);
Tensor expand(const Tensor& x, const Shape& shape);
Tensor reshape(const Tensor& x, const Shape& shape);
Tensor unsqueeze(const Tensor& x, int dim);
Tensor squeeze(const Tensor& x, int dim);
Tensor contiguous(const Tensor& x);
Tensor clone(const Tensor& x);
Tensor cat(const std::vector<Tensor>& tensors, int dim);
Tensor stack(const std::vector<Tensor>& tensors, int dim);
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int dim);
Tensor pad(const Tensor& x, int dim, int64_t before, int64_t after, double value = 0);

// ---- reductions (ops_reduce.cpp) --------------------------------------------------------------
Tensor sum(const Tensor& x, const Dims& dims = {}, bool keep = false);
Tensor mean(const Tensor& x, const Dims& dims = {}, bool keep = false);
/// Ties share the gradient equally.
Tensor max(const Tensor& x, const Dims& dims = {}, bool keep = false);
Tensor min(const Tensor& x, const Dims& dims = {}, bool keep = false);
Tensor var(const Tensor& x, const Dims& dims = {}, bool keep = false, int correction = 1);
Tensor logsumexp(const Tensor& x, const Dims& dims = {}, bool keep = false);
Tensor cumsum(const Tensor& x, int dim = -1);

// ---- matmul and convolution (ops_matmul.cpp) --------------------------------------------------
Tensor matmul(const Tensor& a, const Tensor& b);
/// act(x W^T + b), fused: (..., I) -> (..., O)
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {},
              raw::Activation act = {});
Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& bias = {},
              raw::ConvOptions options = {});
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias = {},
              raw::ConvOptions options = {});

// ---- rows of neural networks (ops_nn.cpp) -------------------------------------------------------
Tensor softmax(const Tensor& x);
Tensor log_softmax(const Tensor& x);
Tensor masked_softmax(const Tensor& x, double scale, const Lengths& q_lengths,
                      const Lengths& k_lengths, bool causal);
Tensor layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double eps = 1e-5);
/// Draws its mask from `rng` (one block reserved); `p` = 0 returns x.
Tensor dropout(const Tensor& x, double p, Rng& rng);
Tensor rotary(const Tensor& x, const Tensor& angles);

// ---- indexing (ops_index.cpp) -------------------------------------------------------------------
Tensor gather(const Tensor& x, int dim, const Tensor& index);
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src);
Tensor index_select(const Tensor& x, int dim, const Tensor& index);
Tensor embedding(const Tensor& weight, const Tensor& index);
/// Values carry the gradient; indices (i64) have none.
std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k);
std::pair<Tensor, Tensor> sort(const Tensor& x, bool descending = false);

// ---- losses per row or item (ops_loss.cpp); nn/loss.h has the reductions
// ---------------------------
/// logits (..., V), targets (...) i64 -> (...)
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore = -100,
                     double smoothing = 0);
/// logits (B, T, V), targets (B, U) i32 -> (B); an infeasible item has loss +inf and gradient 0
Tensor ctc(const Tensor& logits, const Tensor& targets, const Lengths& input_lengths,
           const Lengths& target_lengths, int64_t blank = 0);
/// logits (B, T, V), `fsa` one acceptor for all items or one for each -> (B) f64: the logarithm of
/// the sum over paths (raw::forward_backward); an item without a path has -inf and gradient 0
Tensor log_partition(const Tensor& logits, const Lengths& lengths, const FsaBatch& fsa,
                     double leaky = 0);

// ---- attention and clusters (ops_attention.cpp) -------------------------------------------------
/// Fused softmax attention over the keys `mask` lets a query see. `top_scores` have no history.
Attended tile_attention(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                        double scale, const WeightDropout& dropout = {}, int64_t best = 0);
/// Each query against its group's keys.
Attended gathered_attention(const Tensor& q, const Tensor& extra, const Tensor& k, const Tensor& v,
                            const Groups& groups, KeyRule rule, double scale,
                            const WeightDropout& dropout = {},
                            const WeightDropout& extra_dropout = {}, bool partly = false);
/// Attention over disjoint sets of keys together, from that over each: `out` and `lse`. A set with
/// sign -1 is taken away from the first, of which it must be part; where that leaves no more than
/// the rounding of their sums, nothing is left of the first. `signs` empty: all are added.
Attended merge_attention(const std::vector<Attended>& parts, const std::vector<double>& signs = {});
/// top_mass[g] top[l] + out_of_group[g] - mass[g] top_of_group[g] for each query l of cluster g, 0
/// for those in none. top (B, H, L, D), masses (B, H, K), the others (B, H, K, D).
Tensor correct_rows(const Tensor& top, const Clusters& clusters, const Tensor& top_mass,
                    const Tensor& mass, const Tensor& top_of_group, const Tensor& out_of_group);
/// x (B, H, L, E) -> mean or sum over each cluster (B, H, K, E).
Tensor group_sum(const Tensor& x, const Clusters& clusters, bool mean = false);
/// y (B, H, K, E) -> (B, H, L, E): each query its cluster's row.
Tensor group_broadcast(const Tensor& y, const Clusters& clusters);

}  // namespace centroid
