#pragma once
// Checkpoints: one safetensors file that Python's `safetensors` opens. Tensors `model.<name>`,
// `optimizer.<name>`, `ema.<name>`; everything else as JSON text in the metadata.
#include <map>
#include <string>
#include <vector>

#include "nn/module.h"
#include "tensor/rng.h"

namespace centroid::nn {

inline constexpr int kCheckpointVersion = 1;

/// Everything a run or a program needs to go on from, or to use, a model.
struct Checkpoint {
  NamedTensors model, optimizer, ema;    ///< loaded ones are in the order of their names
  std::map<std::string, RngState> rngs;  ///< by stream name
  int64_t step = 0;
  /// Free-form JSON texts: config, vocabulary, front end, attention string, schedule, data position
  /// ...
  std::map<std::string, std::string> texts;
};

/// Written to a temporary file, synced, renamed: `path` always holds a whole checkpoint. Throws if
/// two tensors of one group share a name or the file cannot be written.
void save_checkpoint(const std::string& path, const Checkpoint& checkpoint);
/// Reads a checkpoint to the CPU. Throws for files that are damaged, no checkpoint, or of a newer
/// format version (naming both versions).
Checkpoint load_checkpoint(const std::string& path);

/// The mean of the weights of several checkpoints of one model: of the averaged (EMA) weights of a
/// checkpoint that has them, else of the trained ones. Sums are taken in f64, one file at a time in
/// memory. The result has no optimiser, no EMA and no random streams, the largest step, and the
/// texts that all files share; a text that differs is an error, unless its name is one of
/// `may_differ`: then it is left out. Throws, naming the file, for an empty list, names or shapes
/// that differ, and weights that are not floating-point or not finite.
Checkpoint average_checkpoints(const std::vector<std::string>& paths,
                               const std::vector<std::string>& may_differ = {});

}  // namespace centroid::nn
