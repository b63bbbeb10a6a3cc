// attention-map for models of the program copy.
#include "apps/attention_map.h"
#include "apps/copy_task.h"

namespace centroid::apps {

namespace {

// The symbols of one sequence as labels: the mask is drawn as `?`.
std::vector<std::string> labels(const copy::TaskOptions& task,
                                const std::vector<int64_t>& symbols) {
  std::vector<std::string> result;
  for (int64_t s : symbols) {
    const bool hidden = !task.causal() && s == task.mask_symbol();
    result.push_back(hidden ? "?" : std::to_string(s));
  }
  return result;
}

}  // namespace

MapSource copy_source(const std::string& model, const CopyMapOptions& options) {
  auto trained = std::make_shared<copy::TrainedModel>(copy::load_model(model));
  copy::TaskOptions task = trained->model->task();
  if (options.length > 0) task.length = options.length;
  copy::check(task);
  auto batch = std::make_shared<copy::Batch>(copy::make_batch(task, 1, Rng(*options.seed, "map")));
  MapSource source;
  source.title = concat("copy, ", task.task, ", length ", batch->inputs.size(1));
  source.x_label = "attended position";
  source.y_label = "position";
  if (batch->inputs.size(1) <= 40) {
    source.tokens = labels(task, batch->inputs.to_vector<int64_t>());
  }
  source.run = [trained, batch](const nn::Context& context) {
    trained->model->forward(raw::to(batch->inputs, default_device()), batch->lengths, context);
  };
  return source;
}

}  // namespace centroid::apps
