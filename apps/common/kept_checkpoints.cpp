#include "apps/common/kept_checkpoints.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/common/log.h"
#include "tensor/error.h"
#include "tensor/file.h"
#include "tensor/json.h"

namespace centroid::apps {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kList = "checkpoints.json";

std::string file_name(int64_t step) {
  char name[48];
  std::snprintf(name, sizeof name, "step-%07lld.safetensors", static_cast<long long>(step));
  return name;
}

std::string in(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

bool better(const KeptCheckpoint& a, const KeptCheckpoint& b) {
  const bool a_nan = std::isnan(a.metric), b_nan = std::isnan(b.metric);
  if (a_nan != b_nan) return b_nan;
  if (!a_nan && a.metric != b.metric) return a.metric < b.metric;
  return a.step < b.step;
}

bool contains(const std::vector<KeptCheckpoint>& entries, const std::string& file) {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const KeptCheckpoint& e) { return e.file == file; });
}

/// Whether `name` is a name that `file_name` gives.
bool is_kept_name(const std::string& name) {
  const std::string begin = "step-", end = ".safetensors";
  if (name.size() <= begin.size() + end.size() || !name.starts_with(begin) || !name.ends_with(end))
    return false;
  return std::all_of(name.begin() + 5, name.end() - static_cast<int64_t>(end.size()),
                     [](char c) { return c >= '0' && c <= '9'; });
}

/// Deletes the kept checkpoints of a folder that are not among `entries`.
void remove_others(const std::string& folder, const std::vector<KeptCheckpoint>& entries) {
  std::error_code error;
  std::vector<fs::path> others;
  for (const auto& file : fs::directory_iterator(folder, error)) {
    const std::string name = file.path().filename().string();
    if (is_kept_name(name) && !contains(entries, name)) others.push_back(file.path());
  }
  CENTROID_CHECK(!error, folder, ": cannot read the folder: ", error.message());
  for (const fs::path& path : others) {
    fs::remove(path, error);
    CENTROID_CHECK(!error, path.string(), ": cannot remove: ", error.message());
  }
}

}  // namespace

KeptCheckpoints::KeptCheckpoints(std::string folder, int64_t latest, int64_t best)
    : folder_(std::move(folder)), latest_(latest), best_(best) {}

void KeptCheckpoints::resume(int64_t step) {
  std::vector<KeptCheckpoint> entries = read_kept_checkpoints(folder_);
  const size_t before = entries.size();
  std::erase_if(entries, [&](const KeptCheckpoint& e) { return e.step > step; });
  if (entries.size() < before) {
    replace(std::move(entries));
  } else {
    entries_ = std::move(entries);
  }
}

void KeptCheckpoints::add(int64_t step, double metric,
                          const std::function<void(const std::string&)>& save) {
  if (latest_ <= 0 && best_ <= 0) return;
  std::vector<KeptCheckpoint> all = entries_;
  std::erase_if(all, [&](const KeptCheckpoint& e) { return e.step >= step; });
  const KeptCheckpoint now{step, metric, file_name(step)};
  all.push_back(now);
  const std::vector<KeptCheckpoint> best = best_of(all, static_cast<size_t>(best_));
  std::vector<KeptCheckpoint> kept;
  for (size_t i = 0; i < all.size(); ++i) {
    const bool late = static_cast<int64_t>(all.size() - i) <= latest_;
    if (late || contains(best, all[i].file)) kept.push_back(all[i]);
  }
  if (contains(kept, now.file)) save(in(folder_, now.file));
  if (kept != entries_) replace(std::move(kept));
}

void KeptCheckpoints::replace(std::vector<KeptCheckpoint> entries) {
  Json list = Json::array();
  for (const KeptCheckpoint& e : entries) {
    const Json metric = std::isfinite(e.metric) ? Json(e.metric)
                        : std::isnan(e.metric)  ? Json("nan")
                                                : Json(e.metric > 0 ? "inf" : "-inf");
    list.push_back({{"step", e.step}, {"metric", metric}, {"file", e.file}});
  }
  const std::string text = list.dump(1) + "\n";
  write_file_atomic(in(folder_, kList), text.data(), text.size());
  entries_ = std::move(entries);
  remove_others(folder_, entries_);
}

std::vector<KeptCheckpoint> best_of(std::vector<KeptCheckpoint> entries, size_t n) {
  std::sort(entries.begin(), entries.end(), better);
  entries.resize(std::min(n, entries.size()));
  return entries;
}

std::vector<KeptCheckpoint> parse_kept_checkpoints(std::string_view text, const std::string& name) {
  const Json list = try_parse_json<Json>(text);
  CENTROID_CHECK(list.is_array(), name, ": expected a list of checkpoints, got something else");
  std::vector<KeptCheckpoint> entries;
  for (const Json& e : list) {
    CENTROID_CHECK(e.is_object() && e.contains("step") && e["step"].is_number_integer() &&
                       e.contains("metric") && e.contains("file") && e["file"].is_string(),
                   name, ": expected objects of step, metric and file, got ", e.dump());
    KeptCheckpoint entry{e["step"].get<int64_t>(), logged_number(e, "metric"),
                         e["file"].get<std::string>()};
    CENTROID_CHECK(entry.file == file_name(entry.step), name, ": step ", entry.step,
                   ": expected the file ", file_name(entry.step), ", got ", entry.file);
    CENTROID_CHECK(entries.empty() || entries.back().step < entry.step, name,
                   ": expected steps in ascending order, got ", entry.step, " after ",
                   entries.empty() ? 0 : entries.back().step);
    entries.push_back(std::move(entry));
  }
  return entries;
}

std::vector<KeptCheckpoint> read_kept_checkpoints(const std::string& folder) {
  const std::string path = in(folder, kList);
  std::error_code error;
  if (!fs::exists(path, error)) return {};
  return parse_kept_checkpoints(read_file(path), path);
}

void remove_kept_checkpoints(const std::string& folder) {
  std::error_code error;
  fs::remove(in(folder, kList), error);
  CENTROID_CHECK(!error, in(folder, kList), ": cannot remove: ", error.message());
  remove_others(folder, {});
}

}  // namespace centroid::apps
