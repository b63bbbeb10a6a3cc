#pragma once
// The commands of the program `copy`. Each `register_*` adds one sub-command with its options and
// the callback that runs it; errors leave a callback as centroid::Error.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "apps/copy_task.h"

namespace centroid::apps {

void register_copy_train(CLI::App& app);  ///< trains a model on a copy task
void register_copy_eval(CLI::App& app);   ///< accuracy of a trained model

/// A score for `--json`.
nlohmann::ordered_json score_json(const copy::TaskOptions& task, const copy::Score& score);

}  // namespace centroid::apps
