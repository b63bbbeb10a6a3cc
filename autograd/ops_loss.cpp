// Losses per row or item. Their kernels find the gradient along with the loss, from the same
// exponentials; it is kept, and backward only scales it by the gradient of each item's loss.
#include "autograd/ops.h"

namespace centroid {

// loss = (1 - s) (-log p_target) + s mean_v (-log p_v) with p = softmax(logits), and
// d(-log p_u)/dlogits_v = p_v - [u = v], so dlogits_v = p_v - (1 - s) [v = target] - s / V: the
// mean of the two terms' gradients. Zero where the target is ignored. The row's dy multiplies it.
Tensor cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore,
                     double smoothing) {
  const auto [losses, dlogits] =
      raw::cross_entropy(logits, targets, ignore, smoothing, will_record({logits}));
  return record("cross_entropy", losses, {logits},
                [dlogits = Saved(dlogits)](const Tensor& dy) -> Grads {
                  return {raw::mul(dlogits.get(), raw::unsqueeze(dy, -1))};
                });
}

// loss = -log sum of the probabilities of all alignments. With gamma_t(v) the share of the
// alignments that emit v at time t, dlogits_tv = p_tv - gamma_t(v) (Graves et al., "Connectionist
// temporal classification", 2006, eq. 16). The item's dy multiplies it.
Tensor ctc(const Tensor& logits, const Tensor& targets, const Lengths& input_lengths,
           const Lengths& target_lengths, int64_t blank) {
  const auto [losses, dlogits] =
      raw::ctc(logits, targets, input_lengths, target_lengths, blank, will_record({logits}));
  return record("ctc", losses, {logits}, [dlogits = Saved(dlogits)](const Tensor& dy) -> Grads {
    return {raw::mul(dlogits.get(), raw::reshape(dy, {dy.numel(), 1, 1}))};
  });
}

// log Z = log sum over paths of e^(weights + sum_t x_t[class of the path in frame t]), so
//   d log Z / dx_tv = (sum over the paths with class v in frame t of e^...) / Z,
// the posterior of class v in frame t. A path counts once per frame, so no frame's logits need to
// be normalised. The item's dy multiplies it.
Tensor log_partition(const Tensor& logits, const Lengths& lengths, const FsaBatch& fsa,
                     double leaky) {
  const auto [log_z, posteriors] =
      raw::forward_backward(logits, lengths, fsa, leaky, will_record({logits}));
  return record("log_partition", log_z, {logits},
                [posteriors = Saved(posteriors)](const Tensor& dy) -> Grads {
                  const Tensor& p = posteriors.get();
                  return {raw::mul(p, raw::cast(raw::reshape(dy, {dy.numel(), 1, 1}), p.dtype()))};
                });
}

}  // namespace centroid
