// report: runs the experiments, keeps their results and writes docs/results.md.
#include "apps/report.h"

#include <fnmatch.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>

#include "apps/common/args.h"
#include "tensor/error.h"
#include "tensor/file.h"

namespace centroid::apps {

namespace {

namespace fs = std::filesystem;

const Words kParts = {"scaling", "copy",   "speech",   "long",      "swap",
                      "festvox", "digits", "asterisk", "recordings"};

struct ReportCommand {
  CommonOptions common;
  ReportPaths paths;
  Words parts = kParts;
  std::string pattern = "*";
  double budget = 0;
  bool list = false;

  std::vector<Cell> chosen() const;
  void run() const;
  void render() const;
  void check() const;
  void list_cells(const std::vector<Cell>& cells) const;
};

std::vector<Cell> ReportCommand::chosen() const {
  const bool smoke = pattern.starts_with("smoke");
  std::vector<Cell> cells = report_cells(smoke);
  std::erase_if(cells, [&](const Cell& c) {
    const bool part = smoke || std::find(parts.begin(), parts.end(), c.part()) != parts.end();
    return !part || ::fnmatch(pattern.c_str(), c.id.c_str(), 0) != 0;
  });
  CENTROID_CHECK(!cells.empty(), "report: --cell ", pattern,
                 ": expected cells of that name, found none");
  return cells;
}

const char* name_of(CellState state) {
  return state == CellState::done ? "done" : state == CellState::changed ? "changed" : "not run";
}

void ReportCommand::list_cells(const std::vector<Cell>& cells) const {
  Json json = Json::array();
  double minutes = 0;
  for (const Cell& c : cells) {
    const CellState state = state_of(c, paths);
    if (state != CellState::done) minutes += c.minutes;
    json.push_back({{"cell", c.id},
                    {"state", name_of(state)},
                    {"minutes", c.minutes},
                    {"commands", c.commands()}});
    if (!common.json) std::printf("%-8s %5.1f min  %s\n", name_of(state), c.minutes, c.id.c_str());
  }
  if (common.json)
    std::cout << json.dump(1) << "\n";
  else
    std::printf("%zu cells, about %.1f h to go\n", cells.size(), minutes / 60);
}

void ReportCommand::run() const {
  const std::vector<Cell> cells = chosen();
  if (list) return list_cells(cells);
  const int failed = run_cells(cells, paths, {budget, common.threads});
  CENTROID_CHECK(failed == 0, "report: ", failed, " cells failed (", paths.work, "/logs)");
}

void ReportCommand::render() const {
  const auto cells = read_cells(report_cells(false), paths);
  const Page page = render_page(cells);
  fs::create_directories(paths.results);
  for (const auto& [name, png] : page.figures) {
    write_file_atomic(paths.results + "/" + name, png.data(), png.size());
  }
  write_file_atomic(paths.page(), page.markdown.data(), page.markdown.size());
  std::cout << paths.page() << ": " << cells.size() << " cells, " << page.figures.size()
            << " figures\n";
}

void ReportCommand::check() const {
  const Page page = render_page(read_cells(report_cells(false), paths));
  const auto same = [](const std::string& path, const std::string& content) {
    CENTROID_CHECK(fs::exists(path) && read_file(path) == content, path,
                   ": not what the cells on file give (report render writes it)");
  };
  same(paths.page(), page.markdown);
  for (const auto& [name, png] : page.figures) same(paths.results + "/" + name, png);
  std::cout << paths.page() << " and " << page.figures.size()
            << " figures are what the cells give\n";
  if (pattern == "*") return;
  for (const Cell& c : chosen()) {
    const std::string differences = check_cell(c, paths, {0, common.threads});
    CENTROID_CHECK(differences.empty(), "report: ", c.id,
                   " gives other results than those on file:\n", differences);
    std::cout << c.id << " gives the results on file\n";
  }
}

CLI::App* add_command(CLI::App& app, ReportCommand& command, const char* name, const char* help) {
  CLI::App* sub = app.add_subcommand(name, help);
  const char* group = "Report";
  sub->add_option("--results", command.paths.results,
                  "Folder of cells and figures; the page is that with .md")
      ->capture_default_str()
      ->group(group);
  if (std::string(name) != "render") {
    sub->add_option("--cell", command.pattern, "Only the cells of this name; * and ? stand for any")
        ->capture_default_str()
        ->group(group);
    sub->add_option("--work", command.paths.work, "Folder of data, runs and logs, to go on from")
        ->capture_default_str()
        ->group(group);
    sub->add_option("--programs", command.paths.programs,
                    "Folder of copy, asr, bench and attention-map")
        ->default_str("this program's")
        ->group(group);
    sub->add_option("--scripts", command.paths.scripts,
                    "Folder of peer_pocketsphinx.py and audio/lexicons")
        ->capture_default_str()
        ->group(group);
  }
  add_common_options(*sub, command.common);
  for (const char* unused : {"--device", "--seed"}) sub->remove_option(sub->get_option(unused));
  return sub;
}

}  // namespace

void register_report(CLI::App& app) {
  auto command = std::make_shared<ReportCommand>();
  command->paths.programs = fs::read_symlink("/proc/self/exe").parent_path().string();
  CLI::App* run = add_command(app, *command, "run", "Run the cells that have no results yet");
  const char* group = "Report";
  run->add_option("--part", command->parts,
                  "scaling, copy, speech, long, swap, festvox, digits, asterisk")
      ->delimiter(',')
      ->check(CLI::IsMember(kParts))
      ->capture_default_str()
      ->group(group);
  run->add_option("--budget", command->budget, "Minutes after which to stop; 0: none")
      ->check(non_negative())
      ->capture_default_str()
      ->group(group);
  run->add_flag("--list", command->list, "List the cells and what they take instead")
      ->configurable(false)
      ->group(group);
  run->callback([command] { command->run(); });
  add_command(app, *command, "render", "Write the page and the figures from the cells on file")
      ->callback([command] { command->render(); });
  add_command(app, *command, "check",
              "See that the page fits the cells; with --cell, run them again and compare")
      ->callback([command] { command->check(); });
}

}  // namespace centroid::apps

int main(int argc, char** argv) {
  CLI::App app{"The paper's experiments: runs them, keeps their results, writes docs/results.md."};
  app.require_subcommand(1);
  centroid::apps::register_report(app);
  return centroid::apps::run_app(argc, argv, app);
}
