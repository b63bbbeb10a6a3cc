#pragma once
// The command `asr score`: its options and results. asr_score.cpp reads, aligns and counts,
// asr_score_report.cpp prints.
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/audio/bootstrap.h"
#include "apps/audio/score.h"
#include "apps/audio/transcripts.h"
#include "apps/common/args.h"

namespace centroid::apps {

/// One system's hypotheses, aligned to the references in their order.
struct ScoredSystem {
  std::string name, format;
  std::vector<std::vector<audio::AlignedPair>> alignments;
  audio::ErrorRate errors;
  std::vector<std::string> missing;  ///< ids without a hypothesis, counted as deletions
  std::vector<std::string> extra;    ///< ids without a reference, left out
};

struct ScoreCommand {
  CommonOptions common;
  std::string reference, hypothesis, versus;
  std::string ref_format = "auto", hyp_format = "auto", versus_format = "auto";
  std::string unit_name = "words", costs = "sclite", utt2spk, map_file, ignore;
  audio::NormalizeOptions normalize;
  audio::BootstrapOptions bootstrap;
  bool by_speaker = false, speakers = false, list = false, errors_only = false;
  bool allow_missing = false, allow_extra = false;
  int64_t confusions = 0;

  void add_options(CLI::App& sub);
  void run();

 private:
  void read_references();
  ScoredSystem score(const std::string& file, const std::string& format) const;
  std::vector<audio::ErrorCount> drawn_items(const ScoredSystem& system) const;
  std::map<std::string, audio::ErrorRate> rates_by_speaker(const ScoredSystem& system) const;
  std::optional<audio::Interval> interval_of(const ScoredSystem& system) const;
  std::string settings() const;

  void print(const ScoredSystem& system) const;
  void print_listing(const ScoredSystem& system) const;
  void print_speakers(const ScoredSystem& system) const;
  void print_confusions(const ScoredSystem& system) const;
  void print_comparison(const ScoredSystem& a, const ScoredSystem& b) const;
  nlohmann::ordered_json to_json(const ScoredSystem& system) const;
  nlohmann::ordered_json comparison_json(const ScoredSystem& a, const ScoredSystem& b) const;

  audio::Unit unit = audio::Unit::words;
  audio::Transcripts references;
  std::vector<std::string> speaker_names;  // of each reference
};

}  // namespace centroid::apps
