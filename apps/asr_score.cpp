// asr score: error rates of any hypotheses against any references, how sure they are, and whether
// one system is better than another.
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/asr_evaluate.h"
#include "apps/asr_score.h"
#include "apps/audio/files.h"
#include "apps/common/args.h"
#include "tensor/parallel.h"

namespace centroid::apps {

using nlohmann::ordered_json;

namespace {

std::optional<audio::TranscriptFormat> format_of(const std::string& name) {
  if (name == "auto") return std::nullopt;
  return audio::transcript_format_from(name);
}

/// Up to ten ids, and how many more there are.
std::string some_of(const std::vector<std::string>& ids) {
  const size_t shown = std::min<size_t>(ids.size(), 10);
  std::string text = audio::join({ids.begin(), ids.begin() + static_cast<int64_t>(shown)}, ", ");
  return ids.size() > shown ? concat(text, " and ", ids.size() - shown, " more") : text;
}

}  // namespace

void ScoreCommand::read_references() {
  unit = audio::unit_from(unit_name);
  references = audio::read_transcripts(reference, format_of(ref_format));
  std::map<std::string, std::string> table;
  if (!utt2spk.empty()) table = audio::parse_utt2spk(audio::read_text(utt2spk), utt2spk);
  for (const audio::Transcript& t : references.items) {
    CENTROID_CHECK(unit != audio::Unit::phones || !t.phones.empty() || t.text.empty() ||
                       references.format != audio::TranscriptFormat::manifest,
                   reference, ": ", t.id, ": expected phones, got a text alone");
    const auto found = table.find(t.id);
    CENTROID_CHECK(utt2spk.empty() || found != table.end(), utt2spk, ": no speaker for ", t.id);
    speaker_names.push_back(!utt2spk.empty()    ? found->second
                            : t.speaker.empty() ? audio::speaker_of(t.id)
                                                : t.speaker);
  }
}

ScoredSystem ScoreCommand::score(const std::string& file, const std::string& format) const {
  const audio::Transcripts hypotheses = audio::read_transcripts(file, format_of(format));
  ScoredSystem system;
  system.name = std::filesystem::path(file).stem().string();
  system.format = audio::name_of(hypotheses.format);
  for (const audio::Transcript& t : references.items) {
    if (!hypotheses.find(t.id)) system.missing.push_back(t.id);
  }
  for (const audio::Transcript& t : hypotheses.items) {
    if (!references.find(t.id)) system.extra.push_back(t.id);
  }
  CENTROID_CHECK(allow_missing || system.missing.empty(), file, ": no hypothesis for ",
                 system.missing.size(), " of ", references.items.size(),
                 " references: ", some_of(system.missing),
                 " (--allow-missing counts them as deletions)");
  CENTROID_CHECK(allow_extra || system.extra.empty(), file, ": ", system.extra.size(),
                 " hypotheses without a reference in ", reference, ": ", some_of(system.extra),
                 " (--allow-extra leaves them out)");
  const audio::AlignCosts& c = costs == "sclite" ? audio::kScliteCosts : audio::kUnitCosts;
  system.alignments.resize(references.items.size());
  parallel_for(0, static_cast<int64_t>(references.items.size()), 16, [&](int64_t i, int64_t end) {
    for (; i < end; ++i) {
      const audio::Transcript& ref = references.items[i];
      const audio::Transcript* hyp = hypotheses.find(ref.id);
      const auto symbols = [&](const audio::Transcript& t, const std::string& name) {
        try {
          return audio::scored_symbols(t, unit, normalize);
        } catch (const Error& error) {
          throw Error(concat(name, ": ", error.what()));
        }
      };
      system.alignments[i] = audio::align(
          symbols(ref, reference), hyp ? symbols(*hyp, file) : std::vector<std::string>{}, c);
    }
  });
  for (const auto& alignment : system.alignments) system.errors.add(alignment);
  return system;
}

std::map<std::string, audio::ErrorRate> ScoreCommand::rates_by_speaker(
    const ScoredSystem& s) const {
  std::map<std::string, audio::ErrorRate> rates;
  for (size_t i = 0; i < s.alignments.size(); ++i) rates[speaker_names[i]].add(s.alignments[i]);
  return rates;
}

std::vector<audio::ErrorCount> ScoreCommand::drawn_items(const ScoredSystem& system) const {
  std::vector<audio::ErrorCount> items;
  if (by_speaker) {
    for (const auto& [name, rate] : rates_by_speaker(system)) {
      items.push_back({rate.errors(), rate.tokens});
    }
    return items;
  }
  for (const auto& alignment : system.alignments) {
    audio::ErrorRate rate;
    rate.add(alignment);
    items.push_back({rate.errors(), rate.tokens});
  }
  return items;
}

/// Nothing where there is nothing to draw from: a single item, no reference symbol, --draws 0.
std::optional<audio::Interval> ScoreCommand::interval_of(const ScoredSystem& system) const {
  const std::vector<audio::ErrorCount> items = drawn_items(system);
  if (bootstrap.draws == 0 || items.size() < 2 || system.errors.tokens == 0) return std::nullopt;
  return audio::bootstrap_rate(items, bootstrap);
}

std::string ScoreCommand::settings() const {
  std::string text = audio::name_of(unit);
  if (unit == audio::Unit::characters) {
    text += normalize.spaces ? " with spaces" : " without spaces";
  }
  text += costs == "sclite" ? ", costs 4/3/3 as sclite" : ", costs 1/1/1 (Levenshtein)";
  if (normalize.lowercase) text += ", lower case";
  if (normalize.strip_punctuation) text += ", no punctuation";
  if (!map_file.empty()) text += ", mapped by " + map_file;
  if (!ignore.empty()) text += ", without " + ignore;
  return text;
}

void ScoreCommand::run() {
  apply(common);
  if (!map_file.empty()) {
    normalize.map = audio::parse_symbol_map(audio::read_text(map_file), map_file);
  }
  const std::vector<std::string> ignored = audio::split_words(ignore);
  normalize.ignore = {ignored.begin(), ignored.end()};
  bootstrap.seed = common.seed;
  read_references();
  const ScoredSystem a = score(hypothesis, hyp_format);
  std::optional<ScoredSystem> b;
  if (!versus.empty()) b = score(versus, versus_format);
  if (b && b->name == a.name) b->name = versus;
  if (common.json) {
    ordered_json out{{"rate_name", asr::rate_name(unit)},
                     {"settings", settings()},
                     {"reference_format", audio::name_of(references.format)}};
    out.update(to_json(a));
    if (b) {
      out["versus"] = to_json(*b);
      out["comparison"] = comparison_json(a, *b);
    }
    std::cout << out.dump(2) << "\n";
    return;
  }
  std::cout << "counted: " << settings() << "\nreferences " << reference << " ("
            << audio::name_of(references.format) << "), hypotheses " << hypothesis << " ("
            << a.format << ")";
  if (b) std::cout << " and " << versus << " (" << b->format << ")";
  std::cout << "\n\n";
  print(a);
  if (!b) return;
  std::cout << "\n";
  print(*b);
  print_comparison(a, *b);
}

void ScoreCommand::add_options(CLI::App& sub) {
  const char* group = "Transcripts";
  const CLI::IsMember formats({"auto", "trn", "kaldi", "tsv", "manifest"});
  sub.add_option("ref", reference,
                 "References: trn, Kaldi's text, a TSV table or a manifest (also .gz)")
      ->required()
      ->group(group);
  sub.add_option("hyp", hypothesis, "Hypotheses, in any of these formats")
      ->required()
      ->group(group);
  sub.add_option("--versus", versus, "Hypotheses of a second system to compare with")->group(group);
  const auto format = [&](const char* name, std::string& value) {
    sub.add_option(name, value, "Format; auto: found by the content")
        ->check(formats)
        ->capture_default_str()
        ->group(group);
  };
  format("--ref-format", ref_format);
  format("--hyp-format", hyp_format);
  format("--versus-format", versus_format);
  sub.add_flag("--allow-missing", allow_missing,
               "Count references without a hypothesis as deleted instead of refusing them")
      ->group(group);
  sub.add_flag("--allow-extra", allow_extra,
               "Leave out hypotheses without a reference instead of refusing them")
      ->group(group);

  group = "Counting";
  sub.add_option("--unit", unit_name, "What is counted: words, characters or phones")
      ->check(CLI::IsMember({"words", "characters", "phones"}))
      ->capture_default_str()
      ->group(group);
  sub.add_option("--costs", costs,
                 "Of the alignment: sclite (substitution 4, deletion and insertion 3) or "
                 "levenshtein (1, the fewest errors, as asr eval)")
      ->check(CLI::IsMember({"sclite", "levenshtein"}))
      ->capture_default_str()
      ->group(group);
  add_switch(sub, "spaces", normalize.spaces, "Characters: count the spaces between words")
      ->group(group);
  sub.add_flag("--lowercase", normalize.lowercase, "Ignore the case of letters")->group(group);
  sub.add_flag("--strip-punctuation", normalize.strip_punctuation,
               "Ignore punctuation; hyphens separate words")
      ->group(group);
  sub.add_option("--ignore", ignore,
                 "Words or phones that do not count, with spaces between them, such as 'sil sp'")
      ->group(group);
  sub.add_option(
         "--map", map_file,
         "File with `from to ...` a line: what words or phones count as (nothing: left out)")
      ->group(group);

  group = "Report";
  sub.add_flag("--speakers", speakers, "Also print the rates of each speaker")->group(group);
  sub.add_option("--utt2spk", utt2spk,
                 "Speakers, `id speaker` a line; else the manifest's, else the id up to - or _")
      ->group(group);
  sub.add_option("--confusions", confusions,
                 "Print so many of the most frequent errors of each kind")
      ->check(in_range(0, 1e9))
      ->capture_default_str()
      ->group(group);
  sub.add_flag("--list", list, "Print every aligned transcript")->group(group);
  sub.add_flag("--errors-only", errors_only, "Print the aligned transcripts that have errors")
      ->group(group);

  group = "Confidence";
  sub.add_option("--draws", bootstrap.draws, "Bootstrap draws; 0: no intervals")
      ->check(in_range(0, 1e8))
      ->capture_default_str()
      ->group(group);
  sub.add_option("--confidence", bootstrap.confidence, "Share of the draws inside the interval")
      ->check(in_range(0.01, 0.9999))
      ->capture_default_str()
      ->group(group);
  sub.add_flag("--by-speaker", by_speaker,
               "Draw speakers instead of utterances: their utterances depend on each other")
      ->group(group);
  add_common_options(sub, common);
}

void register_score(CLI::App& app) {
  auto command = std::make_shared<ScoreCommand>();
  CLI::App* sub =
      app.add_subcommand("score", "Error rates of hypotheses, and which of two systems is better");
  command->add_options(*sub);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
