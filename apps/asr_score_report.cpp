// What `asr score` prints.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "apps/asr_evaluate.h"
#include "apps/asr_score.h"
#include "apps/audio/paired_test.h"
#include "apps/audio/text.h"

namespace centroid::apps {

using nlohmann::ordered_json;

namespace {

std::string percent(double share, int digits = 1) {
  char text[40];
  std::snprintf(text, sizeof text, "%.*f", digits, 100 * share);
  return text;
}

std::string short_p(double p) {
  char text[40];
  std::snprintf(text, sizeof text, p < 0.001 ? "%.1e" : "%.3f", p);
  return text;
}

}  // namespace

void ScoreCommand::print_listing(const ScoredSystem& system) const {
  for (size_t i = 0; i < system.alignments.size(); ++i) {
    audio::ErrorRate rate;
    rate.add(system.alignments[i]);
    if (errors_only && rate.errors() == 0) continue;
    std::cout << references.items[i].id << "\n"
              << audio::format_alignment(system.alignments[i]) << "\n";
  }
}

void ScoreCommand::print_speakers(const ScoredSystem& system) const {
  const auto rates = rates_by_speaker(system);
  int width = 7;
  for (const auto& [name, rate] : rates) width = std::max(width, audio::display_width(name));
  const auto pad = [&](const std::string& name) {
    return name + std::string(width - audio::display_width(name), ' ');
  };
  std::printf("\n%s   utts   tokens   corr    sub    del    ins    err  s.err\n",
              pad("speaker").c_str());
  for (const auto& [name, r] : rates) {
    const double n = r.tokens > 0 ? static_cast<double>(r.tokens) / 100 : std::nan("");
    std::printf("%s %6lld %8lld %6.1f %6.1f %6.1f %6.1f %6.1f %6.1f\n", pad(name).c_str(),
                static_cast<long long>(r.utterances), static_cast<long long>(r.tokens),
                double(r.correct()) / n, double(r.substitutions) / n, double(r.deletions) / n,
                double(r.insertions) / n, double(r.errors()) / n,
                100.0 * double(r.wrong_utterances) / double(r.utterances));
  }
  std::fflush(stdout);
}

void ScoreCommand::print_confusions(const ScoredSystem& system) const {
  audio::Confusions counted;
  for (const auto& alignment : system.alignments) counted.add(alignment);
  const std::pair<audio::Edit, const char*> kinds[] = {
      {audio::Edit::substitution, "substitutions (reference -> hypothesis)"},
      {audio::Edit::deletion, "deletions"},
      {audio::Edit::insertion, "insertions"}};
  for (const auto& [kind, title] : kinds) {
    std::printf("\n%s\n", title);
    for (const auto& e : counted.most_frequent(kind, static_cast<size_t>(confusions))) {
      const std::string pair =
          kind == audio::Edit::substitution ? e.ref + " -> " + e.hyp : e.ref + e.hyp;
      std::printf("%7lld  %s\n", static_cast<long long>(e.count), pair.c_str());
    }
  }
  std::fflush(stdout);
}

void ScoreCommand::print(const ScoredSystem& system) const {
  if (list || errors_only) print_listing(system);
  const audio::ErrorRate& e = system.errors;
  std::cout << audio::summary(system.name, asr::rate_name(unit), e) << "\n"
            << "  correct " << e.correct() << ", sub " << e.substitutions << ", del " << e.deletions
            << ", ins " << e.insertions << "; " << e.wrong_utterances << " of " << e.utterances
            << " sentences wrong (" << percent(double(e.wrong_utterances) / double(e.utterances))
            << " %)\n";
  if (const auto interval = interval_of(system)) {
    std::cout << "  " << percent(bootstrap.confidence, 0) << " % interval "
              << percent(interval->low) << " .. " << percent(interval->high)
              << " % (standard error " << percent(interval->standard_error, 2) << "; "
              << bootstrap.draws << " draws of " << (by_speaker ? "speakers" : "utterances")
              << ")\n";
  }
  if (!system.missing.empty()) {
    std::cout << "  " << system.missing.size() << " missing hypotheses counted as deletions\n";
  }
  if (!system.extra.empty()) {
    std::cout << "  " << system.extra.size() << " hypotheses without a reference left out\n";
  }
  std::cout.flush();
  if (speakers) print_speakers(system);
  if (confusions > 0) print_confusions(system);
}

void ScoreCommand::print_comparison(const ScoredSystem& a, const ScoredSystem& b) const {
  std::cout << "\n" << b.name << " against " << a.name << "\n";
  if (interval_of(a)) {
    const audio::Improvement i =
        audio::bootstrap_improvement(drawn_items(a), drawn_items(b), bootstrap);
    std::cout << "  difference " << percent(b.errors.rate() - a.errors.rate(), 2) << " % ("
              << percent(bootstrap.confidence, 0) << " % interval " << percent(i.difference.low, 2)
              << " .. " << percent(i.difference.high, 2) << "); " << b.name << " is better in "
              << percent(i.probability) << " % of the draws\n";
  }
  const audio::SegmentTest s = audio::segment_test(a.alignments, b.alignments);
  std::printf("  MAPSSWE: %lld segments, %lld and %lld errors, z %.2f, p %s%s\n",
              static_cast<long long>(s.segments), static_cast<long long>(s.a_errors),
              static_cast<long long>(s.b_errors), s.z, short_p(s.p).c_str(),
              s.segments < 50 ? " (fewer than 50 segments: p is rough)" : "");
  const audio::SentenceTest m = audio::sentence_test(a.alignments, b.alignments);
  std::printf("  McNemar: %lld sentences right in %s alone, %lld in %s alone, p %s\n",
              static_cast<long long>(m.a_only), a.name.c_str(), static_cast<long long>(m.b_only),
              b.name.c_str(), short_p(m.p).c_str());
  std::fflush(stdout);
}

namespace {

ordered_json rate_json(const audio::ErrorRate& e) {
  return {{"rate", e.tokens > 0 ? ordered_json(e.rate()) : ordered_json()},
          {"correct", e.correct()},
          {"substitutions", e.substitutions},
          {"deletions", e.deletions},
          {"insertions", e.insertions},
          {"tokens", e.tokens},
          {"utterances", e.utterances},
          {"wrong_utterances", e.wrong_utterances}};
}

ordered_json interval_json(const audio::Interval& i) {
  return {{"low", i.low}, {"high", i.high}, {"standard_error", i.standard_error}};
}

}  // namespace

ordered_json ScoreCommand::to_json(const ScoredSystem& system) const {
  ordered_json out{{"name", system.name}, {"format", system.format}};
  out.update(rate_json(system.errors));
  const auto interval = interval_of(system);
  out["interval"] = interval ? interval_json(*interval) : ordered_json();
  out["missing"] = system.missing;
  out["extra"] = system.extra;
  if (speakers) {
    for (const auto& [name, rate] : rates_by_speaker(system)) {
      out["speakers"][name] = rate_json(rate);
    }
  }
  if (confusions > 0) {
    audio::Confusions counted;
    for (const auto& alignment : system.alignments) counted.add(alignment);
    for (const auto& [kind, key] : {std::pair(audio::Edit::substitution, "substitutions"),
                                    std::pair(audio::Edit::deletion, "deletions"),
                                    std::pair(audio::Edit::insertion, "insertions")}) {
      ordered_json entries = ordered_json::array();
      for (const auto& e : counted.most_frequent(kind, static_cast<size_t>(confusions))) {
        entries.push_back({{"ref", e.ref}, {"hyp", e.hyp}, {"count", e.count}});
      }
      out["confusions"][key] = entries;
    }
  }
  if (!list && !errors_only) return out;
  out["alignments"] = ordered_json::array();
  for (size_t i = 0; i < system.alignments.size(); ++i) {
    audio::ErrorRate rate;
    rate.add(system.alignments[i]);
    if (errors_only && rate.errors() == 0) continue;
    ordered_json pairs = ordered_json::array();
    for (const auto& p : system.alignments[i]) {
      pairs.push_back({p.ref, p.hyp, std::string(1, static_cast<char>(p.edit))});
    }
    out["alignments"].push_back({{"id", references.items[i].id}, {"pairs", pairs}});
  }
  return out;
}

ordered_json ScoreCommand::comparison_json(const ScoredSystem& a, const ScoredSystem& b) const {
  ordered_json out;
  if (interval_of(a)) {
    const audio::Improvement i =
        audio::bootstrap_improvement(drawn_items(a), drawn_items(b), bootstrap);
    out["difference"] = b.errors.rate() - a.errors.rate();
    out["interval"] = interval_json(i.difference);
    out["probability_of_improvement"] = i.probability;
  }
  const audio::SegmentTest s = audio::segment_test(a.alignments, b.alignments);
  out["mapsswe"] = {{"segments", s.segments},
                    {"a_errors", s.a_errors},
                    {"b_errors", s.b_errors},
                    {"mean", s.mean},
                    {"deviation", s.deviation},
                    {"z", std::isfinite(s.z) ? ordered_json(s.z) : ordered_json()},
                    {"p", s.p}};
  const audio::SentenceTest m = audio::sentence_test(a.alignments, b.alignments);
  out["mcnemar"] = {{"a_only_right", m.a_only}, {"b_only_right", m.b_only}, {"p", m.p}};
  return out;
}

}  // namespace centroid::apps
