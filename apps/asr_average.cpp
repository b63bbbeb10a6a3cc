// asr average: the mean of the weights of several checkpoints of a recogniser.
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/asr.h"
#include "apps/asr_model.h"
#include "apps/common/args.h"
#include "apps/common/kept_checkpoints.h"

namespace centroid::apps {

namespace {

using nlohmann::ordered_json;

struct AverageCommand {
  CommonOptions common;
  std::vector<std::string> files;
  std::string folder, out;
  int64_t best = 0, last = 0;

  void run();

 private:
  std::vector<std::string> chosen() const;
};

/// The files to average, from the command line or from the list of the run.
std::vector<std::string> AverageCommand::chosen() const {
  CENTROID_CHECK(files.empty() != folder.empty(),
                 "asr average: expected checkpoint files or --run, got ",
                 files.empty() ? "neither" : "both");
  if (!files.empty()) {
    CENTROID_CHECK(best == 0 && last == 0,
                   "asr average: --best and --last choose from a --run, got files");
    return files;
  }
  CENTROID_CHECK((best > 0) != (last > 0),
                 "asr average: --run: expected --best N or --last N, got ",
                 best > 0 ? "both" : "neither");
  std::vector<KeptCheckpoint> entries = read_kept_checkpoints(folder);
  const int64_t wanted = best + last;
  CENTROID_CHECK(wanted <= static_cast<int64_t>(entries.size()), folder, ": expected at least ",
                 wanted, " kept checkpoints, found ", entries.size(),
                 " (train with --keep-best or --keep-last)");
  entries = best > 0 ? best_of(entries, static_cast<size_t>(best))
                     : std::vector<KeptCheckpoint>(entries.end() - last, entries.end());
  std::vector<std::string> paths;
  for (const KeptCheckpoint& e : entries) {
    paths.push_back((std::filesystem::path(folder) / e.file).string());
  }
  return paths;
}

void AverageCommand::run() {
  apply(common);
  const std::vector<std::string> paths = chosen();
  const std::set<std::string> each(paths.begin(), paths.end());
  CENTROID_CHECK(each.size() == paths.size(), "asr average: expected each checkpoint once, got ",
                 paths.size() - each.size(), " of them again");
  asr::load_recognizer(paths[0]);  // names what is wrong with another program's
  // Runs of one model may differ in how they were trained.
  nn::Checkpoint average = nn::average_checkpoints(paths, {"config", "train", "averaged"});
  average.texts["averaged"] = ordered_json(paths).dump();
  nn::save_checkpoint(out, average);
  if (common.json) {
    std::cout << ordered_json{{"out", out}, {"averaged", paths}, {"step", average.step}}.dump(2)
              << "\n";
    return;
  }
  for (const std::string& path : paths) std::cout << path << "\n";
  std::cout << "mean of " << paths.size() << " -> " << out << "\n";
}

}  // namespace

void register_average(CLI::App& app) {
  auto command = std::make_shared<AverageCommand>();
  CLI::App* sub = app.add_subcommand("average", "Checkpoints of a recogniser -> their mean");
  const char* group = "Average";
  sub->add_option("files", command->files, "Checkpoint files of one model")->group(group);
  sub->add_option("--run", command->folder,
                  "Run folder that was trained with --keep-best or --keep-last")
      ->type_name("DIR")
      ->group(group);
  sub->add_option("--best", command->best, "So many of the run's best evaluations")
      ->check(in_range(0, 1e6))
      ->group(group);
  sub->add_option("--last", command->last, "So many of the run's latest kept evaluations")
      ->check(in_range(0, 1e6))
      ->group(group);
  sub->add_option("--out", command->out, "Checkpoint file to write, for asr eval and transcribe")
      ->required()
      ->type_name("FILE")
      ->group(group);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
