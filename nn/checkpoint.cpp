#include "nn/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "tensor/json.h"
#include "tensor/ops.h"
#include "tensor/safetensors.h"

namespace centroid::nn {
namespace {

using Json = nlohmann::json;

// Metadata of the file. Texts are stored under their name behind kText.
constexpr const char* kFormatKey = "format";
constexpr const char* kFormat = "centroid-checkpoint";
constexpr const char* kVersionKey = "version";
constexpr const char* kStepKey = "step";
constexpr const char* kRngsKey = "rngs";
const std::string kText = "text.";

struct Group {
  std::string prefix;
  NamedTensors Checkpoint::*tensors;
};
const Group kGroups[] = {{"model.", &Checkpoint::model},
                         {"optimizer.", &Checkpoint::optimizer},
                         {"ema.", &Checkpoint::ema}};

std::string rngs_text(const std::map<std::string, RngState>& rngs) {
  Json json = Json::object();
  for (const auto& [name, state] : rngs) {
    json[name] = {{"key", state.key}, {"counter", state.counter}};
  }
  return json.dump();
}

std::map<std::string, RngState> parse_rngs(const std::string& text, const std::string& path) {
  std::map<std::string, RngState> rngs;
  const Json json = try_parse_json<Json>(text);
  bool good = json.is_object();
  if (good) {
    for (const auto& [name, state] : json.items()) {
      good = good && state.is_object() && state.contains("key") && state.contains("counter") &&
             state["key"].is_number_unsigned() && state["counter"].is_number_unsigned();
      if (!good) break;
      rngs[name] = {state["key"].get<uint64_t>(), state["counter"].get<uint64_t>()};
    }
  }
  CENTROID_CHECK(good, path, ": checkpoint: metadata '", kRngsKey,
                 "': expected an object of {key, counter}, got '", text.substr(0, 80), "'");
  return rngs;
}

// The entry `key` of the metadata; throws when the file has none.
const std::string& entry(const SafetensorsFile& file, const char* key, const std::string& path) {
  const auto found = file.metadata.find(key);
  CENTROID_CHECK(found != file.metadata.end(), path, ": checkpoint: metadata '", key,
                 "' is missing (the file is damaged)");
  return found->second;
}

int64_t integer(const std::string& text, const char* key, const std::string& path) {
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  CENTROID_CHECK(error == std::errc() && end == text.data() + text.size() && value >= 0, path,
                 ": checkpoint: metadata '", key, "': expected a whole number from 0 up, got '",
                 text.substr(0, 80), "'");
  return value;
}

void check_format(const SafetensorsFile& file, const std::string& path) {
  const auto format = file.metadata.find(kFormatKey);
  CENTROID_CHECK(format != file.metadata.end() && format->second == kFormat, path,
                 ": expected a checkpoint of Centroid, got a safetensors file ",
                 format == file.metadata.end() ? std::string("without a format")
                                               : "of format '" + format->second + "'");
  const int64_t version = integer(entry(file, kVersionKey, path), kVersionKey, path);
  CENTROID_CHECK(version <= kCheckpointVersion, path,
                 ": checkpoint: format version: expected at most ", kCheckpointVersion, ", got ",
                 version, " (written by a newer Centroid)");
}

}  // namespace

void save_checkpoint(const std::string& path, const Checkpoint& checkpoint) {
  std::map<std::string, Tensor> tensors;
  for (const Group& group : kGroups) {
    for (const auto& [name, tensor] : checkpoint.*group.tensors) {
      const Tensor host = raw::contiguous(raw::to(tensor.detach(), Device{}));
      CENTROID_CHECK(tensors.emplace(group.prefix + name, host).second, path,
                     ": checkpoint: two tensors are named '", group.prefix, name, "'");
    }
  }
  std::map<std::string, std::string> metadata = {{kFormatKey, kFormat},
                                                 {kVersionKey, std::to_string(kCheckpointVersion)},
                                                 {kStepKey, std::to_string(checkpoint.step)},
                                                 {kRngsKey, rngs_text(checkpoint.rngs)}};
  for (const auto& [name, text] : checkpoint.texts) metadata[kText + name] = text;
  save_safetensors(path, tensors, metadata);
}

Checkpoint load_checkpoint(const std::string& path) {
  const SafetensorsFile file = load_safetensors(path);
  check_format(file, path);
  Checkpoint checkpoint;
  checkpoint.step = integer(entry(file, kStepKey, path), kStepKey, path);
  checkpoint.rngs = parse_rngs(entry(file, kRngsKey, path), path);
  for (const auto& [key, text] : file.metadata) {
    if (key.starts_with(kText)) checkpoint.texts[key.substr(kText.size())] = text;
  }
  for (const auto& [key, tensor] : file.tensors) {
    bool known = false;
    for (const Group& group : kGroups) {
      if (!key.starts_with(group.prefix)) continue;
      (checkpoint.*group.tensors).emplace_back(key.substr(group.prefix.size()), tensor);
      known = true;
    }
    CENTROID_CHECK(known, path, ": checkpoint: tensor '", key,
                   "': expected a name that begins with model., optimizer. or ema.");
  }
  return checkpoint;
}

namespace {

// Averaged weights, by name and in f64, with the dtype they go back to.
struct Sum {
  Tensor total;
  DType dtype;
};

void add_weights(const NamedTensors& weights, std::map<std::string, Sum>& sums, bool first,
                 const std::string& path) {
  CENTROID_CHECK(first || weights.size() == sums.size(), path, ": expected ", sums.size(),
                 " weights as in the first checkpoint, got ", weights.size(),
                 " (is it of another model?)");
  for (const auto& [name, tensor] : weights) {
    CENTROID_CHECK(tensor.dtype() == DType::f32 || tensor.dtype() == DType::f64, path, ": ", name,
                   ": expected floating-point weights, got ", tensor.dtype());
    const Tensor wide = raw::cast(tensor, DType::f64);
    for (const double value : wide.to_vector<double>()) {
      CENTROID_CHECK(std::isfinite(value), path, ": ", name, ": holds a value that is not finite");
    }
    if (first) {
      sums.emplace(name, Sum{raw::clone(wide), tensor.dtype()});
      continue;
    }
    const auto sum = sums.find(name);
    CENTROID_CHECK(sum != sums.end(), path, ": ", name,
                   ": not in the first checkpoint (is it of another model?)");
    CENTROID_CHECK(sum->second.total.shape() == wide.shape() && sum->second.dtype == tensor.dtype(),
                   path, ": ", name, ": expected ", sum->second.total.shape(), " ",
                   sum->second.dtype, ", got ", wide.shape(), " ", tensor.dtype());
    raw::add_(sum->second.total, wide);
  }
}

// Keeps the texts that both have; another text under one name is an error or, where it may be,
// leaves the name out.
void merge_texts(std::map<std::string, std::string>& texts,
                 const std::map<std::string, std::string>& other,
                 const std::vector<std::string>& may_differ, const std::string& path) {
  const auto optional = [&](const std::string& name) {
    return std::find(may_differ.begin(), may_differ.end(), name) != may_differ.end();
  };
  for (const auto& [name, text] : other) {
    CENTROID_CHECK(texts.contains(name) || optional(name), path, ": the first checkpoint has no ",
                   name);
  }
  for (auto it = texts.begin(); it != texts.end();) {
    const auto found = other.find(it->first);
    const bool same = found != other.end() && found->second == it->second;
    CENTROID_CHECK(same || optional(it->first), path, ": the ", it->first,
                   " is not that of the first checkpoint");
    it = same ? std::next(it) : texts.erase(it);
  }
}

}  // namespace

Checkpoint average_checkpoints(const std::vector<std::string>& paths,
                               const std::vector<std::string>& may_differ) {
  CENTROID_CHECK(!paths.empty(), "average: expected at least one checkpoint, got none");
  Checkpoint result;
  std::map<std::string, Sum> sums;
  for (const std::string& path : paths) {
    const Checkpoint checkpoint = load_checkpoint(path);
    const bool first = &path == &paths.front();
    add_weights(checkpoint.ema.empty() ? checkpoint.model : checkpoint.ema, sums, first, path);
    if (first) result.texts = checkpoint.texts;
    merge_texts(result.texts, checkpoint.texts, may_differ, path);
    result.step = std::max(result.step, checkpoint.step);
  }
  const double share = 1.0 / static_cast<double>(paths.size());
  for (const auto& [name, sum] : sums) {
    result.model.emplace_back(name, raw::cast(raw::mul(sum.total, share), sum.dtype));
  }
  return result;
}

}  // namespace centroid::nn
