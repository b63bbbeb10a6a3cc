// asr align: when each symbol and word of known transcripts was spoken.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/asr.h"
#include "apps/asr_alignment.h"
#include "apps/asr_loss.h"
#include "apps/audio/boundaries.h"
#include "apps/audio/ctm.h"
#include "apps/audio/files.h"
#include "apps/audio/textgrid.h"
#include "apps/common/args.h"
#include "tensor/file.h"

namespace centroid::apps {

namespace {

namespace fs = std::filesystem;
using asr::AlignedUtterance;
using nlohmann::json;
using nlohmann::ordered_json;

struct AlignCommand {
  CommonOptions common;
  std::string model, data, attention, out, lexicon, reference, tier, compare = "symbols";
  std::vector<std::string> formats = {"ctm"},
                           pauses = {"pau", "sil", "sp", "SIL", "<sil>", "<eps>"};
  audio::SegmentOptions placing;  // shift and reach

  void run() const;
  void write(const std::vector<AlignedUtterance>& utterances, const std::string& unit) const;
  audio::BoundaryErrors compare_with_reference(const std::vector<AlignedUtterance>& utterances,
                                               const std::string& unit) const;
};

void write_text(const fs::path& path, const std::string& text) {
  write_file_atomic(path.string(), text.data(), text.size());
}

ordered_json to_json(const std::vector<audio::TimedWord>& words) {
  ordered_json list = ordered_json::array();
  for (const audio::TimedWord& w : words) {
    list.push_back({{"text", w.text},
                    {"begin", audio::round_to_ms(w.begin)},
                    {"end", audio::round_to_ms(w.end)},
                    {"confidence", std::round(w.confidence * 1e4) / 1e4}});
  }
  return list;
}

std::string json_line(const AlignedUtterance& u, const std::string& unit) {
  ordered_json object{
      {"id", u.id}, {"seconds", u.seconds}, {"log_prob", u.log_prob}, {unit, to_json(u.symbols)}};
  if (unit != "words" && !u.words.empty()) object["words"] = to_json(u.words);
  return object.dump() + "\n";
}

std::string textgrid_of(const AlignedUtterance& u, const std::string& unit) {
  audio::TextGrid grid;
  grid.tiers.push_back(audio::interval_tier(unit, u.symbols, u.seconds));
  if (unit != "words" && !u.words.empty()) {
    grid.tiers.push_back(audio::interval_tier("words", u.words, u.seconds));
  }
  grid.end = grid.tiers[0].end;
  return audio::format_textgrid(grid);
}

std::string lab_of(const AlignedUtterance& u) {
  std::vector<audio::TimedWord> segments = u.symbols;
  for (audio::TimedWord& s : segments) {
    s.begin = audio::round_to_ms(s.begin);
    s.end = audio::round_to_ms(s.end);
  }
  return audio::format_lab(segments);
}

void AlignCommand::write(const std::vector<AlignedUtterance>& utterances,
                         const std::string& unit) const {
  audio::make_folder(out);
  const fs::path folder = out;
  std::set<std::string> names;
  std::vector<audio::CtmEntry> symbols, words;
  std::string lines;
  const std::set<std::string> wanted(formats.begin(), formats.end());
  for (const AlignedUtterance& u : utterances) {
    if (!u.error.empty()) continue;
    const std::string name = audio::file_name(u.id);
    if (wanted.count("textgrid") + wanted.count("lab") > 0) {
      CENTROID_CHECK(names.insert(name).second, "align: two utterances would be written to ", name);
    }
    if (wanted.count("textgrid")) write_text(folder / (name + ".TextGrid"), textgrid_of(u, unit));
    if (wanted.count("lab")) write_text(folder / (name + ".lab"), lab_of(u));
    if (wanted.count("json")) lines += json_line(u, unit);
    if (!wanted.count("ctm")) continue;
    for (auto& entry : audio::ctm_entries(u.id, u.symbols)) symbols.push_back(std::move(entry));
    for (auto& entry : audio::ctm_entries(u.id, u.words)) words.push_back(std::move(entry));
  }
  if (wanted.count("json")) write_text(folder / "alignment.jsonl", lines);
  if (!wanted.count("ctm")) return;
  write_text(folder / (unit + ".ctm"), audio::format_ctm(symbols));
  if (unit != "words" && !words.empty()) {
    write_text(folder / "words.ctm", audio::format_ctm(words));
  }
}

audio::BoundaryErrors AlignCommand::compare_with_reference(
    const std::vector<AlignedUtterance>& utterances, const std::string& unit) const {
  const std::string name = compare == "words" ? "words" : unit;
  const audio::ReferenceMarks marks(reference, tier.empty() ? name : tier, pauses);
  audio::BoundaryErrors errors;
  int64_t without = 0;
  for (const AlignedUtterance& u : utterances) {
    if (!u.error.empty()) continue;
    try {
      errors.add(marks.of(u.id), name == unit ? u.symbols : u.words);
    } catch (const Error& error) {
      std::cerr << "error: " << u.id << ": " << error.what() << "\n";
      ++without;
    }
  }
  CENTROID_CHECK(without == 0, "align: --reference: ", without, " of ", utterances.size(),
                 " utterances have no marks there to compare with");
  CENTROID_CHECK(!errors.begins.empty(), "align: --reference: expected ", name,
                 " as in the transcripts, got none of them (--compare, --tier)");
  return errors;
}

json to_json(const audio::BoundaryStats& s) {
  return {{"count", s.count},
          {"mean_ms", 1000 * s.mean},
          {"median_ms", 1000 * s.median},
          {"bias_ms", 1000 * s.bias},
          {"within_20_ms", s.within_20_ms},
          {"within_50_ms", s.within_50_ms}};
}

std::string line_of(const char* what, const audio::BoundaryStats& s) {
  char line[200];
  std::snprintf(line, sizeof line,
                "%-10s %7lld: mean %5.1f ms, median %5.1f ms, within 20 ms %5.1f %%, within 50 ms "
                "%5.1f %%, bias %+.1f ms",
                what, static_cast<long long>(s.count), 1000 * s.mean, 1000 * s.median,
                100 * s.within_20_ms, 100 * s.within_50_ms, 1000 * s.bias);
  return line;
}

void AlignCommand::run() const {
  apply(common);
  CENTROID_CHECK(!out.empty() || !reference.empty(),
                 "align: expected --out FOLDER, --reference PATH or both, got neither");
  asr::TrainedRecognizer trained = asr::load_recognizer(model, attention);
  CENTROID_CHECK(asr::read_criterion(trained.loss, trained.vocab.size())->has_blank(), model,
                 ": align: expected a recogniser with CTC's blank (--loss ctc, or lfmmi with "
                 "--topology ctc), got another");
  const asr::Dataset set(data, trained.front_end, trained.vocab, 0);
  const audio::Lexicon words = lexicon.empty() ? audio::Lexicon() : audio::read_lexicon(lexicon);
  const std::string unit = audio::name_of(trained.vocab.unit());
  CENTROID_CHECK(reference.empty() || compare != "words" || unit != "phones" || !words.empty(),
                 "align: --compare words: expected a --lexicon that makes words of phones");
  const std::vector<AlignedUtterance> utterances = asr::align_dataset(trained, set, words, placing);
  if (!out.empty()) write(utterances, unit);
  json report{{"utterances", utterances.size()}};
  if (!reference.empty()) {
    const audio::BoundaryErrors errors = compare_with_reference(utterances, unit);
    const audio::BoundaryStats begins = audio::summarise(errors.begins);
    const audio::BoundaryStats ends = audio::summarise(errors.ends), all = errors.all();
    report["boundaries"] = to_json(all);
    report["begins"] = to_json(begins);
    report["ends"] = to_json(ends);
    report["missing"] = errors.missing;
    report["surplus"] = errors.surplus;
    if (!common.json) {
      std::cout << line_of("boundaries", all) << "\n"
                << line_of("begins", begins) << "\n"
                << line_of("ends", ends) << "\n";
      if (errors.missing + errors.surplus > 0) {
        std::cout << errors.missing << " symbols only in the reference, " << errors.surplus
                  << " only in the transcripts: not compared\n";
      }
    }
  }
  int64_t failed = 0;
  for (const AlignedUtterance& u : utterances) {
    if (u.error.empty()) continue;
    ++failed;
    std::cerr << "error: " << u.id << ": " << u.error << "\n";
  }
  report["failed"] = failed;
  if (common.json) std::cout << report.dump(2) << "\n";
  std::fprintf(stderr, "%zu utterances, %.0f s of sound%s%s\n", utterances.size(), set.seconds(),
               out.empty() ? "" : ", written to ", out.c_str());
  CENTROID_CHECK(failed == 0, "align: ", failed, " of ", utterances.size(),
                 " utterances could not be aligned");
}

}  // namespace

void register_align(CLI::App& app) {
  auto command = std::make_shared<AlignCommand>();
  CLI::App* sub = app.add_subcommand(
      "align", "When each symbol and word of known transcripts was spoken (forced alignment)");
  const char* group = "Alignment";
  sub->add_option("--model", command->model, "Run folder or checkpoint file")
      ->required()
      ->group(group);
  sub->add_option("--data", command->data, "Manifest with transcripts")->required()->group(group);
  sub->add_option("--out", command->out, "Folder for the results")->group(group);
  sub->add_option("--format", command->formats,
                  "What to write, one or several of: ctm (symbols and words in a file each), "
                  "textgrid and lab (a file per utterance), json (a line per utterance)")
      ->delimiter(',')
      ->check(CLI::IsMember({"ctm", "textgrid", "lab", "json"}))
      ->capture_default_str()
      ->group(group);
  sub->add_option("--lexicon", command->lexicon,
                  "Words and their phones: aligns the text, whatever phones the manifest has, and "
                  "gives words")
      ->group(group);
  sub->add_option("--attention", command->attention,
                  "Attention to use instead of the one the model was trained with")
      ->group(group);
  const char* placing = "Boundaries";
  sub->add_option("--reach", command->placing.reach,
                  "Seconds a symbol may extend beyond its own frames; the rest is a pause")
      ->check(non_negative())
      ->capture_default_str()
      ->group(placing);
  sub->add_option("--shift", command->placing.shift,
                  "Seconds added to all times: minus the bias measured with --reference")
      ->check(in_range(-10, 10))
      ->capture_default_str()
      ->group(placing);
  const char* reference = "Comparison";
  sub->add_option("--reference", command->reference,
                  "Time marks to compare with: a folder of ID.lab or ID.TextGrid, or a CTM file")
      ->group(reference);
  sub->add_option("--compare", command->compare, "What to compare: symbols or words")
      ->check(CLI::IsMember({"symbols", "words"}))
      ->capture_default_str()
      ->group(reference);
  sub->add_option("--tier", command->tier, "Tier of the reference's TextGrids")
      ->default_str("the unit's name, such as phones")
      ->group(reference);
  sub->add_option("--pauses", command->pauses, "Labels of the reference that are no symbols")
      ->delimiter(',')
      ->capture_default_str()
      ->group(reference);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
