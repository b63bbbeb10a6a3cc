#pragma once
// Raw operations: compute, record nothing. Every function checks device, dtype and shape of its
// arguments and throws an Error that names both sides; none promotes dtypes silently. `dim` may
// count from the end. Functions that end in `_` change their first argument in place.
#include <utility>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/lengths.h"
#include "tensor/rng.h"
#include "tensor/tensor.h"

namespace centroid {

// Outside of raw:: so that a call of centroid::linear(x, w, b, act) does not also find raw::linear.

/// What `linear` does last.
struct Activation {
  bool used = false;
  Unary function = Unary::relu;
};

struct ConvOptions {
  int64_t stride = 1, padding = 0, dilation = 1, groups = 1;  ///< groups: 1, or all channels (1-D)
};

}  // namespace centroid

namespace centroid::raw {

using centroid::Activation;
using centroid::ConvOptions;

// ---- views: share storage, cost nothing (ops_view.cpp) --------------------------------------
Tensor transpose(const Tensor& x, int dim0, int dim1);
Tensor permute(const Tensor& x, const Dims& order);
/// Elements begin, begin + step, ... < end of `dim`; negative bounds count from the end, bounds
/// beyond the tensor throw.
Tensor slice(const Tensor& x, int dim, int64_t begin, int64_t end, int64_t step = 1);
/// One index of `dim`, which disappears.
Tensor select(const Tensor& x, int dim, int64_t index);
/// Repeats dimensions of size 1 (and missing leading ones) with stride 0.
Tensor expand(const Tensor& x, const Shape& shape);
/// Same elements in row-major order; one size may be -1. A view where strides allow, else a copy.
Tensor reshape(const Tensor& x, const Shape& shape);
Tensor unsqueeze(const Tensor& x, int dim);
Tensor squeeze(const Tensor& x, int dim);

// ---- copies (ops_view.cpp) ------------------------------------------------------------------
Tensor contiguous(const Tensor& x);  ///< x itself when it already is
/// x itself when it is undefined or its last dimension has stride 1, else a contiguous copy.
Tensor unit_last(const Tensor& x);
Tensor clone(const Tensor& x);  ///< always a contiguous copy
Tensor cast(const Tensor& x, DType dtype);
Tensor to(const Tensor& x, Device device);
void copy_(const Tensor& y, const Tensor& x);  ///< y = x, expanded to y's shape
void fill_(const Tensor& y, double value);
void add_(const Tensor& y, const Tensor& x, double alpha = 1);  ///< y += alpha * x, broadcast

// ---- pointwise (ops_pointwise.cpp) ----------------------------------------------------------
Tensor unary(Unary op, const Tensor& x, double a = 0, double b = 0);
Tensor unary_backward(Unary op, const Tensor& x, const Tensor& dy, double a = 0, double b = 0);
Tensor binary(Binary op, const Tensor& a, const Tensor& b);  ///< broadcasts
Tensor compare(Compare op, const Tensor& a, const Tensor& b);
Tensor compare(Compare op, const Tensor& a, double b);
/// condition (u8) ? a : b, broadcast
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
/// Sums `x` down to `shape`, undoing a broadcast.
Tensor sum_to(const Tensor& x, const Shape& shape);

inline Tensor add(const Tensor& a, const Tensor& b) { return binary(Binary::add, a, b); }
inline Tensor sub(const Tensor& a, const Tensor& b) { return binary(Binary::sub, a, b); }
inline Tensor mul(const Tensor& a, const Tensor& b) { return binary(Binary::mul, a, b); }
inline Tensor div(const Tensor& a, const Tensor& b) { return binary(Binary::div, a, b); }
inline Tensor pow(const Tensor& a, const Tensor& b) { return binary(Binary::pow, a, b); }
inline Tensor minimum(const Tensor& a, const Tensor& b) { return binary(Binary::min, a, b); }
inline Tensor maximum(const Tensor& a, const Tensor& b) { return binary(Binary::max, a, b); }
inline Tensor add(const Tensor& x, double a) { return unary(Unary::add_scalar, x, a); }
inline Tensor mul(const Tensor& x, double a) { return unary(Unary::mul_scalar, x, a); }
inline Tensor pow(const Tensor& x, double a) { return unary(Unary::pow_scalar, x, a); }
inline Tensor clamp(const Tensor& x, double low, double high) {
  return unary(Unary::clamp, x, low, high);
}
inline Tensor neg(const Tensor& x) { return unary(Unary::neg, x); }
inline Tensor exp(const Tensor& x) { return unary(Unary::exp, x); }
inline Tensor log(const Tensor& x) { return unary(Unary::log, x); }
inline Tensor sqrt(const Tensor& x) { return unary(Unary::sqrt, x); }
inline Tensor tanh(const Tensor& x) { return unary(Unary::tanh, x); }
inline Tensor sigmoid(const Tensor& x) { return unary(Unary::sigmoid, x); }
inline Tensor relu(const Tensor& x) { return unary(Unary::relu, x); }
inline Tensor gelu(const Tensor& x) { return unary(Unary::gelu, x); }
inline Tensor square(const Tensor& x) { return unary(Unary::square, x); }
inline Tensor abs(const Tensor& x) { return unary(Unary::abs, x); }

// ---- random (ops_pointwise.cpp): each call reserves its blocks of the stream ------------------
Tensor uniform(const Shape& shape, Rng& rng, double low = 0, double high = 1,
               DType dtype = DType::f32, Device device = default_device());
Tensor normal(const Shape& shape, Rng& rng, double mean = 0, double stddev = 1,
              DType dtype = DType::f32, Device device = default_device());
/// Zeroes each element with probability `p` and scales the rest by 1 / (1 - p). `state` is one
/// block reserved from an Rng; the same state gives the same mask. (..., n) -> (..., n)
Tensor dropout(const Tensor& x, double p, RngState state);

// ---- reductions (ops_reduce.cpp); `dims` empty = all ------------------------------------------
Tensor sum(const Tensor& x, const Dims& dims = {}, bool keep = false);
Tensor mean(const Tensor& x, const Dims& dims = {}, bool keep = false);
Tensor max(const Tensor& x, const Dims& dims = {}, bool keep = false);
Tensor min(const Tensor& x, const Dims& dims = {}, bool keep = false);
/// Variance with divisor n - `correction`.
Tensor var(const Tensor& x, const Dims& dims = {}, bool keep = false, int correction = 1);
Tensor logsumexp(const Tensor& x, const Dims& dims = {}, bool keep = false);
Tensor argmax(const Tensor& x, int dim = -1, bool keep = false);  ///< i64
Tensor argmin(const Tensor& x, int dim = -1, bool keep = false);
Tensor cumsum(const Tensor& x, int dim = -1);
/// Whether any element is NaN or infinite.
bool has_nonfinite(const Tensor& x);
/// Sum of squares over all tensors, which are on one device, accumulated in f64 -> (1) f64.
Tensor sum_squares(const std::vector<Tensor>& tensors);
/// Its square root, on the host.
double global_norm(const std::vector<Tensor>& tensors);

// ---- matmul and convolution (ops_matmul.cpp, ops_conv.cpp) --------------------------------------
/// (..., M, K) x (..., K, P) -> (..., M, P); batch dimensions broadcast; 1-D arguments as in NumPy.
/// Transposed views are used as they are.
Tensor matmul(const Tensor& a, const Tensor& b);
/// x (..., I), weight (O, I), bias (O) or undefined -> act(x W^T + b) (..., O). `pre`, when not
/// null, receives the value before the activation (undefined without one).
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, Activation act = {},
              Tensor* pre = nullptr);
/// x (B, I, T), w (O, I / groups, k), bias (O) or undefined -> (B, O, T'), T' = (T + 2p - d(k-1) -
/// 1)/s + 1
Tensor conv1d(const Tensor& x, const Tensor& w, const Tensor& bias, ConvOptions options = {});
/// x (B, I, H, W), w (O, I, kh, kw), bias (O) or undefined -> (B, O, H', W'); one stride, padding
/// and dilation for both dimensions.
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, ConvOptions options = {});
/// Gradients of the two convolutions for dy; those that are not needed stay
/// undefined.
struct ConvGrads {
  Tensor dx, dw, dbias;
};
ConvGrads conv1d_backward(const Tensor& x, const Tensor& w, const Tensor& dy, ConvOptions options,
                          bool needs_dx, bool needs_dw, bool needs_dbias);
ConvGrads conv2d_backward(const Tensor& x, const Tensor& w, const Tensor& dy, ConvOptions options,
                          bool needs_dx, bool needs_dw, bool needs_dbias);

// ---- rows of neural networks (ops_nn.cpp), over the last dimension unless said otherwise
// ---------
Tensor softmax(const Tensor& x);
Tensor softmax_backward(const Tensor& dy, const Tensor& y, double scale = 1);
Tensor log_softmax(const Tensor& x);
Tensor log_softmax_backward(const Tensor& dy, const Tensor& y);
/// Attention weights: x (B, H, L, S) -> softmax(scale * x) over the valid keys; see kernels.def.
Tensor masked_softmax(const Tensor& x, double scale, const Lengths& q_lengths,
                      const Lengths& k_lengths, bool causal);
struct LayerNormResult {
  Tensor y, mean, rstd;  // (..., n), (R), (R)
};
LayerNormResult layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias,
                           double eps = 1e-5);
struct LayerNormGrads {
  Tensor dx, dgain, dbias;
};
LayerNormGrads layer_norm_backward(const Tensor& x, const Tensor& gain, const Tensor& mean,
                                   const Tensor& rstd, const Tensor& dy, bool needs_dx,
                                   bool needs_dgain, bool needs_dbias);
/// logits (..., V), targets (...) i64 -> per-row losses (...) and, if asked, their gradient.
struct LossAndGrad {
  Tensor losses, dlogits;
};
LossAndGrad cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore,
                          double smoothing, bool with_grad);
/// logits (B, T, V), targets (B, U) i32 -> losses (B); see kernels.def. Throws for labels outside
/// [0, V), labels equal to `blank` and lengths beyond the tensors.
LossAndGrad ctc(const Tensor& logits, const Tensor& targets, const Lengths& input_lengths,
                const Lengths& target_lengths, int64_t blank, bool with_grad);
/// Sums over the paths of acceptors, and the shares of the classes in them: see kernels.def.
struct PathSums {
  Tensor log_z;       ///< (B) f64
  Tensor posteriors;  ///< (B, T, V), if asked for
};
/// logits (B, T, V); `fsa` holds one acceptor for all items or one for each. Throws unless its
/// classes are V, and for leaky > 0 of acceptors that cannot leak.
PathSums forward_backward(const Tensor& logits, const Lengths& lengths, const FsaBatch& fsa,
                          double leaky, bool with_posteriors);
/// x (B, L, H, E), angles (L, E / 2)
Tensor rotary(const Tensor& x, const Tensor& angles, bool inverse = false);

// ---- indexing (ops_index.cpp): indices are i64 or i32 and are checked
// -----------------------------
Tensor gather(const Tensor& x, int dim, const Tensor& index);
/// y = x with y[.., index[.., i, ..], ..] += src[.., i, ..]
Tensor scatter_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src);
Tensor index_select(const Tensor& x, int dim, const Tensor& index);
/// y = x with y[.., index[i], ..] += src[.., i, ..]
Tensor index_add(const Tensor& x, int dim, const Tensor& index, const Tensor& src);
/// weight (N, C), index (...) -> (..., C)
Tensor embedding(const Tensor& weight, const Tensor& index);
Tensor cat(const std::vector<Tensor>& tensors, int dim);
Tensor stack(const std::vector<Tensor>& tensors, int dim);
std::vector<Tensor> split(const Tensor& x, const std::vector<int64_t>& sizes, int dim);
/// Adds `before` and `after` elements of `value` around `dim`.
Tensor pad(const Tensor& x, int dim, int64_t before, int64_t after, double value = 0);
/// The k largest of the last dimension, descending, and their indices (i64). 1 <= k <= n.
std::pair<Tensor, Tensor> topk(const Tensor& x, int64_t k);
/// Sorted last dimension (stable) and the indices (i64).
std::pair<Tensor, Tensor> sort(const Tensor& x, bool descending = false);
/// index (...) -> (..., classes)
Tensor one_hot(const Tensor& index, int64_t classes, DType dtype = DType::f32);

// ---- attention (ops_attention.cpp): see kernels.def. q (B, H, L, E), k (B, H, S, E), v (B, H, S,
// D), any strides; results of shape (B, H, L, D) lie in memory as (B, L, H, D) -----------------
/// Throws unless the lengths fit into (batch, queries, keys).
KeyMask key_mask(const Tensor& q, const Tensor& k, const Lengths& q_lengths,
                 const Lengths& k_lengths, bool causal);
/// Uninitialised (B, H, n, width) in (B, n, H, width) memory, with B, H and dtype of `like`.
Tensor empty_heads_last(const Tensor& like, int64_t n, int64_t width);
struct AttentionGrads {
  Tensor dq, dk, dv, dextra;
};
/// Without v, only `lse` and the `best` keys are computed.
Attended tile_attention(const Tensor& q, const Tensor& k, const Tensor& v, const KeyMask& mask,
                        double scale, const WeightDropout& dropout = {}, int64_t best = 0);
/// `dout` and `dlse` may be undefined (zero). Gradients that are not needed stay undefined.
AttentionGrads tile_attention_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                                       const KeyMask& mask, double scale,
                                       const WeightDropout& dropout, const Attended& y,
                                       const Tensor& dout, const Tensor& dlse, bool needs_dq,
                                       bool needs_dk, bool needs_dv);
/// Each query against its group's keys; `extra` (B, H, G, E) may be undefined. With `partly`, some
/// queries are in no group: their result is 0.
Attended gathered_attention(const Tensor& q, const Tensor& extra, const Tensor& k, const Tensor& v,
                            const Groups& groups, KeyRule rule, double scale,
                            const WeightDropout& dropout, const WeightDropout& extra_dropout,
                            bool partly);
/// `dy` holds the gradients of the results, undefined ones are zero.
AttentionGrads gathered_attention_backward(const Tensor& q, const Tensor& extra, const Tensor& k,
                                           const Tensor& v, const Groups& groups, KeyRule rule,
                                           double scale, const WeightDropout& dropout,
                                           const WeightDropout& extra_dropout, bool partly,
                                           const Attended& y, const Attended& dy);

// ---- clustering (ops_cluster.cpp) ---------------------------------------------------------------
/// How many clusters each item of `lengths` gets: at most one per valid query, at least one.
Lengths cluster_counts(const ClusterOptions& options, const Lengths& lengths);
/// Sign hashes of x (B, H, L, E) by random planes drawn from `rng` -> codes (B, H, L) i64.
Tensor hash_codes(const Tensor& x, const Lengths& lengths, const ClusterOptions& options, Rng& rng);
/// Hashes and k-means in Hamming space (clustered attention, section 3.2): q (B, H, L, E). The
/// clusters of an item depend on its own valid queries and on `rng` only. Throws for options out of
/// range.
Clusters cluster_queries(const Tensor& q, const Lengths& lengths, const ClusterOptions& options,
                         Rng& rng);
/// For blocks of `block` queries; options.clusters is a whole number.
PastClusters cluster_past(const Tensor& q, const Lengths& lengths, const ClusterOptions& options,
                          int64_t block, Rng& rng);
/// The same as `cluster_past`, one block after the other. Nothing learnt so far:
GrowingMeans growing_means(int64_t batch, int64_t heads, int64_t clusters, Device device);
/// codes (B, H, n) of `hash_codes` by the nearest cluster that has members; -1 while there is none.
Clusters nearest_learnt(const Tensor& codes, const GrowingMeans& means);
/// Adds a block's codes (B, H, n) to `means`; returns the clusters they joined.
Clusters learn_block(const Tensor& codes, const GrowingMeans& means, int64_t iterations);
/// The same structure from labels in [-1, count), which is checked: the device is waited for.
Clusters clusters_of_labels(const Tensor& labels, int64_t count);
/// Without a look at the values, for labels that cannot be others.
Clusters clusters_of_valid_labels(const Tensor& labels, int64_t count);
/// Throws for options out of range.
void check_options(const ClusterOptions& options);
/// x (B, H, L, E) -> sum or mean per group (B, H, G, E).
Tensor group_sum(const Tensor& x, const Clusters& clusters, bool mean = false);
/// y (B, H, G, E) -> (B, H, L, E) in (B, L, H, E) memory: each query its group's row, divided by
/// the group's size if `mean`; 0 for queries in none.
Tensor group_broadcast(const Tensor& y, const Clusters& clusters, bool mean = false);

}  // namespace centroid::raw
