// The sections of the page about recognisers.
#include <cmath>

#include "apps/report_page.h"
#include "tensor/error.h"

namespace centroid::apps {

namespace {

// "12.3 (11.0 to 13.7)": a rate and the interval of `asr score`, in %.
std::string with_interval(const Cells& cells, const std::string& id, const std::string& key) {
  const auto at = [&](const char* path) { return number(cells, id, concat("/", key, "/", path)); };
  if (std::isnan(at("rate"))) return text(at("rate"));
  return concat(percent(at("rate")), " (", percent(at("interval/low")), " to ",
                percent(at("interval/high")), ")");
}

double rate_of(const Cells& cells, const std::string& id, const std::string& key) {
  return number(cells, id, "/" + key + "/rate");
}

std::string count_of(const Cells& cells, const std::string& id, const std::string& path) {
  const double value = number(cells, id, path);
  return std::isnan(value) ? text(value) : std::to_string(std::llround(value));
}

// ---- 6. one voice -------------------------------------------------------------------------------

void compare_losses(std::ostream& out, const Cells& cells) {
  out << R"(
LF-MMI against CTC, same attention and seed: the difference in points with its 95 % interval, and the probability of
such a difference between equals (MAPSSWE):
)";
  std::vector<Words> rows;
  for (const std::string& unit : kVoiceUnits) {
    for (const Variant& v : kVoiceVariants) {
      Words row = {unit + ", " + v.name};
      for (int64_t seed = 1; seed <= kVoiceSeeds; ++seed) {
        const std::string id = voice_cell(unit, kVoiceLosses[1], v.name, seed);
        const auto at = [&](const std::string& path) {
          return number(cells, id, "/versus/comparison/" + path);
        };
        row.push_back(cells.contains(id)
                          ? concat(percent(at("difference")), " (", percent(at("interval/low")),
                                   " to ", percent(at("interval/high")), "), p ",
                                   text(at("mapsswe/p"), 2))
                          : text(std::nan("")));
      }
      rows.push_back(row);
    }
  }
  table(out, {"units, attention", "seed 1", "seed 2"}, rows);
}

void voice(std::ostream& out, const Cells& cells) {
  out << R"(
## 6. Recognisers of one voice: two losses, two kinds of attention

festvox-ru again, `--preset festvox-ru` (four frames per position, 1,800 steps): phone and character error rates
of the test set in %, decoded without a language model beside the n-gram that LF-MMI has in its graph. In brackets
the 95 % interval of the bootstrap over test sentences; it does not cover the luck of the training, which the
second seed gives an idea of. All of it is one speaker reading one book, heard in training: it says how
the methods compare, not how well anyone else would be understood. The 6-gram of the last line is made of
the phones of the training sentences, its weights are tuned on the development set.
)" << cells_line(cells, "festvox");
  std::vector<Words> rows;
  std::vector<double> minutes;
  double best = std::nan("");
  for (const std::string& unit : kVoiceUnits) {
    for (const std::string& loss : kVoiceLosses) {
      for (const Variant& v : kVoiceVariants) {
        Words row = {concat(unit, ", ", loss, ", ", v.name)};
        std::vector<double> rates;
        for (int64_t seed = 1; seed <= kVoiceSeeds; ++seed) {
          const std::string id = voice_cell(unit, loss, v.name, seed);
          rates.push_back(rate_of(cells, id, "score"));
          row.push_back(with_interval(cells, id, "score"));
          if (unit == kVoiceUnits[0]) best = std::fmin(best, rates.back());
          const auto cell = cells.find(id);
          if (cell != cells.end()) minutes.push_back(cell->second.at("seconds").get<double>() / 60);
        }
        row.push_back(percent(mean(rates)));
        rows.push_back(row);
      }
    }
  }
  rows.push_back({concat(kVoiceUnits[0], ", ctc, ", kVoiceVariants[0].name, ", with a 6-gram"),
                  with_interval(cells, kVoiceLmCell, "score"), "-", "-"});
  table(out, {"units, loss, attention", "seed 1", "seed 2", "mean"}, rows);
  best = std::fmin(best, rate_of(cells, kVoiceLmCell, "score"));
  if (!std::isnan(best)) out << "\nLowest phone error rate: " << percent(best) << " %.";
  if (!minutes.empty()) {
    out << " A training with its tests takes " << text(median(minutes)) << " minutes (median).\n";
  }
  compare_losses(out, cells);
}

// ---- 7. connected digits -----------------------------------------------------------------------

void digits(std::ostream& out, const Cells& cells) {
  out << R"(
## 7. Connected digits of an unknown speaker

FSDD has six speakers. Each is left out once: sequences of 1 to 8 s are made of the takes of the other five, and
the one who was left out is recognised. Phones, decoded with a lexicon of the ten words. Word error rate in % of 150
sequences, with the 95 % interval over them; beside it that of the same speaker's 500 takes one by one, nearly all
shorter than anything in training, and with statistics of their own. Five voices are few, and ten words are all there is. The recipe
was found by trials on all of them but yweweler, whose digits were first heard when it was done: the others' rates flatter it.
)" << cells_line(cells, "digits");
  std::vector<Words> rows;
  std::vector<double> rates, single;
  for (const std::string& speaker : kDigitSpeakers) {
    const std::string id = "digits/" + speaker;
    rates.push_back(rate_of(cells, id, "score"));
    rows.push_back({speaker, with_interval(cells, id, "score"),
                    count_of(cells, id, "/score/tokens"),
                    count_of(cells, id, "/score/wrong_utterances"),
                    percent(rate_of(cells, id, "isolated-score"))});
    single.push_back(rate_of(cells, id, "isolated-score"));
  }
  rows.push_back({"mean of the speakers", percent(mean(rates)), "", "", percent(mean(single))});
  table(out, {"left out", "WER %", "words", "sequences with an error", "isolated digits, WER %"},
        rows);
}

// ---- 8. prompts ---------------------------------------------------------------------------------

void prompts(std::ostream& out, const Cells& cells) {
  out << R"(
## 8. Prompts of a telephone exchange

The English prompts of Asterisk, 0.3 hours of one speaker at 8 kHz to train on. No text of the test set occurs in
training, though most of its words do. Characters, decoded greedily, and with a trigram of words that is made of the
training texts and outside of whose words nothing is found (weights tuned on the development set). Beside it PocketSphinx with the models of its Debian
package, on the same prompts: from G.722 at 16 kHz, what its models are made for, and from the 8 kHz that ours hears. It has never
heard this speaker, ours has heard nobody else; it knows general English, ours these menus. The comparison says
how far a small model for one voice and one purpose gets, nothing about speech in general.
)" << cells_line(cells, "asterisk");
  std::vector<Words> rows;
  for (int64_t seed = 1; seed <= kPromptSeeds; ++seed) {
    const std::string id = concat("asterisk/seed", seed);
    for (const auto& [key, name] : {std::pair{"greedy-score", "greedy"}, {"lm-score", "trigram"}}) {
      rows.push_back({concat("Centroid, ", name, ", seed ", seed), with_interval(cells, id, key)});
    }
  }
  rows.push_back({"PocketSphinx, 16 kHz", with_interval(cells, kPeerCell, "wide-score")});
  rows.push_back({"PocketSphinx, 8 kHz", with_interval(cells, kPeerCell, "narrow-score")});
  table(out, {"system", "WER %"}, rows);
}

// ---- 9. long recordings -------------------------------------------------------------------------

void recordings(std::ostream& out, const Cells& cells) {
  out << R"(
## 9. Long recordings

The models of part 6 with CTC, phones and seed 1 were trained on utterances of 4 to 18 s. Here they hear the 62 test utterances
joined without gaps (10 minutes), and an hour that also holds those of dev and a part of the training set, for time and
memory; its error rates are those of a mostly known text. Error rates in % of phones, decoded greedily.
)" << cells_line(cells, "recordings");
  Words head = {"test set, PER %"};
  for (const Variant& v : kVoiceVariants) head.push_back(v.name);
  std::vector<Words> rows = {{"utterance by utterance"}};
  for (const Variant& v : kVoiceVariants) {
    const std::string trained = voice_cell(kVoiceUnits[0], kVoiceLosses[0], v.name, 1);
    rows[0].push_back(percent(rate_of(cells, trained, "score")));
  }
  for (const RecordingMode& mode : kRecordingModes) {
    rows.push_back({mode.label});
    for (const Variant& v : kVoiceVariants) {
      const std::string key = concat(kJoinedTest, "-", mode.name, "-score");
      rows.back().push_back(percent(rate_of(cells, "recordings/" + v.name, key)));
    }
  }
  table(out, head, rows);
  rows.clear();
  for (const Variant& v : kVoiceVariants) {
    const std::string id = "recordings/" + v.name;
    for (const RecordingMode& mode : kRecordingModes) {
      if (!mode.hour) continue;
      const std::string key = concat(kJoinedHour, "-", mode.name);
      const double seconds = number(cells, id, "/" + key + "/seconds"),
                   took = number(cells, id, "/" + key + "/seconds_taken");
      rows.push_back({concat(v.name, ", ", mode.label), percent(rate_of(cells, id, key + "-score")),
                      text(took), text(took / seconds, 2),
                      text(number(cells, id, "/" + key + "/peak_mib"), 4)});
    }
  }
  table(out, {"an hour", "PER %", "seconds", "real-time factor", "peak memory, MiB"}, rows);
}

}  // namespace

void render_recognisers(std::ostream& out, const Cells& cells) {
  voice(out, cells);
  digits(out, cells);
  prompts(out, cells);
  recordings(out, cells);
}

}  // namespace centroid::apps
