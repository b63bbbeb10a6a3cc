#pragma once
// Gradient checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016).
#include "autograd/node.h"

namespace centroid {

/// Runs `f(inputs)` without keeping what its backward needs; backward runs it again, with
/// recording. The states of `rngs` are put back for the second run and the choices made through
/// `replayable` are repeated, so the gradients are those of `f`, bit for bit. `f` must depend on
/// nothing else that changes, and what it captures and the generators must live until backward.
/// Parameters that `f` uses besides `inputs` receive their gradients too. Calls may be nested.
/// Throws in backward when the second run does not give results of the same shapes or makes other
/// numbers of choices.
std::vector<Tensor> recompute(
    const std::function<std::vector<Tensor>(const std::vector<Tensor>&)>& f,
    const std::vector<Tensor>& inputs, const std::vector<Rng*>& rngs = {});

/// A discrete choice (clusters, top-k, ...) made inside `f`: chosen by `choose` in the first run of
/// a `recompute`, repeated in the second; outside of `recompute` simply `choose()`. Choices carry
/// no gradient.
std::vector<Tensor> replayable(const std::function<std::vector<Tensor>()>& choose);

}  // namespace centroid
