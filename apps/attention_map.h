#pragma once
// What the program attention-map draws: one run of a model with labels for its positions.
#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "nn/attention.h"

namespace centroid::apps {

/// A model and an input whose attention can be drawn.
struct MapSource {
  std::string title;
  std::string x_label, y_label;     ///< keys and queries, with their unit
  double step = 1;                  ///< from one position to the next, in that unit
  std::vector<std::string> tokens;  ///< a label per position instead of numbers
  std::function<void(const nn::Context&)>
      run;  ///< runs the model; `context.tap` sees the attention
};

struct CopyMapOptions {
  int64_t length = 0;              ///< of the sequence; 0: as trained
  const uint64_t* seed = nullptr;  ///< of the random sequence
};

/// A model of the program copy on one random sequence of its task.
MapSource copy_source(const std::string& model, const CopyMapOptions& options);

void register_attention_map(CLI::App& app);

}  // namespace centroid::apps
