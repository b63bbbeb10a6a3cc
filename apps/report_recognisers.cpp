// The cells about recognisers: losses and attention on one voice, digits of a speaker who was never
// heard, prompts whose text was never seen.
#include "apps/report_steps.h"
#include "tensor/error.h"

namespace centroid::apps {

namespace {

const std::string kData = "$WORK/data/";
const std::string kDigitLexicon = "$SCRIPTS/audio/lexicons/english-digits.txt";

// Which of its sets a corpus in `$WORK/data` is tested on, and in which unit.
struct TestSet {
  std::string corpus, unit;
  std::string file(const std::string& set) const { return kData + corpus + "/" + set + ".jsonl"; }
};

std::string hypotheses(const std::string& run, const std::string& name) {
  return run_folder(run) + "/" + name + ".hyp";
}

// Decodes the test set into a file of transcripts.
Step decode(const std::string& name, const std::string& run, const TestSet& set,
            const std::string& options) {
  return result(name, concat("asr eval --model ", run_folder(run), " --data ", set.file("test"),
                             " --score ", set.unit, " --hyp ", hypotheses(run, name), options));
}

// The interval of an error rate, and how a second system compares when there is one.
Step score(const std::string& name, const TestSet& set, const std::string& hyp,
           const std::string& versus = "") {
  return result(name, concat("asr score ", set.file("test"), " ", hyp, " --unit ", set.unit,
                             " --costs levenshtein", versus.empty() ? "" : " --versus " + versus));
}

// ---- one voice ----------------------------------------------------------------------------------

TestSet voice_set(const std::string& unit) {
  return {unit == "phones" ? "festvox-ru" : "festvox-ru-characters", unit};
}

Step voice_data(const std::string& unit) {
  if (unit == "phones") return speech_data();
  const std::string name = voice_set(unit).corpus;
  return {Step::prepare, name,
          words("asr prepare --format festvox --source $FESTVOX_RU --unit characters --lowercase "
                "--strip-punctuation --split every-10th --check headers --out " +
                kData + name)};
}

Step voice_training(const std::string& unit, const std::string& loss, const Variant& v,
                    int64_t seed) {
  const std::string data = kData + voice_set(unit).corpus;
  return train(voice_cell(unit, loss, v.name, seed),
               concat("asr train --preset festvox-ru --train ", data, "/train.jsonl --dev ", data,
                      "/dev.jsonl --vocab ", data, "/vocab.json --loss ", loss, " --attention ",
                      v.attention, " --seed ", seed));
}

void add_voice(std::vector<Cell>& cells) {
  for (const std::string& unit : kVoiceUnits) {
    const TestSet set = voice_set(unit);
    for (const std::string& loss : kVoiceLosses) {
      for (const Variant& v : kVoiceVariants) {
        for (int64_t seed = 1; seed <= kVoiceSeeds; ++seed) {
          const Step training = voice_training(unit, loss, v, seed);
          const std::string& run = training.name;
          Cell cell{run, 8, seed == 1 ? 10 : 13, {voice_data(unit), training}};
          cell.steps.push_back(decode("test", run, set, ""));
          cell.steps.push_back(score("score", set, hypotheses(run, "test")));
          if (loss != kVoiceLosses[0]) {
            const Step other = voice_training(unit, kVoiceLosses[0], v, seed);
            cell.steps.push_back(other);
            cell.steps.push_back(decode("other", other.name, set, ""));
            cell.steps.push_back(
                score("versus", set, hypotheses(other.name, "other"), hypotheses(run, "test")));
          }
          cells.push_back(cell);
        }
      }
    }
  }
}

// The language model and its weights: phones of the training set, tuned on dev.
void add_voice_lm(std::vector<Cell>& cells) {
  const TestSet set = voice_set("phones");
  const Step training = voice_training("phones", "ctc", kVoiceVariants[0], 1);
  const std::string arpa = kData + "festvox-ru.arpa", decoder = run_folder(training.name) + ".lm";
  const Step lm{Step::prepare, "festvox-ru-lm",
                words(concat("asr lm --manifest ", set.file("train"),
                             " --unit phones --order 6 --out ", arpa))};
  const Step tune =
      result("tune", concat("asr tune --model ", run_folder(training.name), " --data ",
                            set.file("dev"), " --lm ", arpa, " --beam 32 --out ", decoder));
  cells.push_back({kVoiceLmCell,
                   2,
                   11,
                   {voice_data("phones"), training, lm, tune,
                    decode("lm", training.name, set, " --decoder " + decoder),
                    score("score", set, hypotheses(training.name, "lm"))}});
}

// ---- long recordings ----------------------------------------------------------------------------

// Transcribes `sound` and scores it as one utterance.
void add_transcript(Cell& cell, const std::string& run, const std::string& sound,
                    const RecordingMode& mode) {
  const std::string name = concat(sound, "-", mode.name), out = run_folder(cell.id) + "-" + name;
  cell.steps.push_back(
      result(name, concat("asr transcribe ", kData, sound, ".wav --model ", run_folder(run), " ",
                          mode.options, " --format json --out ", out)));
  cell.steps.push_back(
      result(name + "-score", concat("asr score ", kData, sound, ".jsonl ", out, "/", sound,
                                     ".json --unit phones --costs levenshtein --draws 0")));
}

void add_recordings(std::vector<Cell>& cells) {
  const TestSet set = voice_set("phones");
  const std::string test = "asr join --data " + set.file("test");
  for (const Variant& v : kVoiceVariants) {
    const Step training = voice_training("phones", "ctc", v, 1);
    Cell cell{"recordings/" + v.name, 5, 14, {voice_data("phones"), training}};
    cell.steps.push_back(
        {Step::prepare, kJoinedTest, words(concat(test, " --out ", kData, kJoinedTest, ".wav"))});
    cell.steps.push_back({Step::prepare, kJoinedHour,
                          words(concat(test, " ", set.file("dev"), " ", set.file("train"),
                                       " --seconds 3600 --out ", kData, kJoinedHour, ".wav"))});
    for (const RecordingMode& mode : kRecordingModes) {
      add_transcript(cell, training.name, kJoinedTest, mode);
      if (mode.hour) add_transcript(cell, training.name, kJoinedHour, mode);
    }
    cells.push_back(cell);
  }
}

// ---- connected digits -------------------------------------------------------------------------

// Sequences of digits; those of `speaker` are the test set.
Step digit_data(const std::string& name, const std::string& speaker, const std::string& options) {
  return {Step::prepare, name,
          words(concat("asr prepare --format digits --source $FSDD --unit phones --lexicon ",
                       kDigitLexicon, " --subsampling 2 --leave-out ", speaker, " ", options,
                       " --out ", kData, name))};
}

// Speed changes pitch and formants together: voices that the five others do not have. One speaker's
// takes have a hiss under them that hides his fricatives, others' have none, and between takes
// there is digital silence: hence noise and the limited range. A mask in time that hides a whole
// digit would teach to guess. Phones tell the model what within a word it is that counts.
void add_digits(std::vector<Cell>& cells) {
  for (const std::string& speaker : kDigitSpeakers) {
    const TestSet set{"digits-without-" + speaker, "words"}, single{"digit-of-" + speaker, "words"};
    const std::string id = "digits/" + speaker, data = kData + set.corpus;
    Cell cell{id, 9, 12, {}};
    cell.steps.push_back(digit_data(set.corpus, speaker,
                                    "--min-seconds 1 --max-seconds 8 --train-sequences 1500 "
                                    "--dev-sequences 80 --test-sequences 150"));
    cell.steps.push_back(digit_data(single.corpus, speaker,
                                    "--min-seconds 0.01 --max-seconds 0.01 --train-sequences 100 "
                                    "--dev-sequences 1 --test-sequences 500"));
    cell.steps.push_back(train(
        id, concat("asr train --preset one-hour --rate 8000 --layers 3 --batch-items 16 "
                   "--subsampling 2 --steps 1000 --eval-every 250 --dynamic-range 30 "
                   "--speed-perturb 0.8,0.9,1.0,1.1,1.2,1.3 --coloured-noise 0.6 "
                   "--noise-snr-min 5 --noise-snr-max 30 --time-width 10 --freq-width 10 --train ",
                   data, "/train.jsonl --dev ", data, "/dev.jsonl --vocab ", data, "/vocab.json")));
    const std::string decoder = " --lexicon " + kDigitLexicon;
    cell.steps.push_back(decode("test", id, set, decoder));
    cell.steps.push_back(score("score", set, hypotheses(id, "test")));
    cell.steps.push_back(decode("isolated", id, single, decoder));
    cell.steps.push_back(score("isolated-score", single, hypotheses(id, "isolated")));
    cells.push_back(cell);
  }
}

// ---- prompts ------------------------------------------------------------------------------------

const TestSet kPrompts{"asterisk", "words"};

Step prompt_data() {
  const std::string share = "$ASTERISK/usr/share/";
  return {Step::prepare, kPrompts.corpus,
          words("asr prepare --format asterisk --source " + share +
                "asterisk/sounds/en_US_f_Allison --transcripts " + share +
                "doc/asterisk-core-sounds-en/core-sounds-en.txt.gz --unit characters --lowercase "
                "--strip-punctuation --skip-bad --split texts --test-fraction 0.2 --out " +
                kData + kPrompts.corpus)};
}

void add_prompts(std::vector<Cell>& cells) {
  const std::string data = kData + kPrompts.corpus, arpa = data + ".arpa";
  const Step lm{Step::prepare, "asterisk-lm",
                words(concat("asr lm --manifest ", kPrompts.file("train"),
                             " --unit words --order 3 --out ", arpa))};
  for (int64_t seed = 1; seed <= kPromptSeeds; ++seed) {
    const std::string id = concat("asterisk/seed", seed), decoder = run_folder(id) + ".lm";
    const Step training =
        train(id, concat("asr train --preset one-hour --rate 8000 --steps 3600 --warmup 400 "
                         "--eval-every 900 --speed-perturb 0.9,1.0,1.1 --drop-infeasible --train ",
                         data, "/train.jsonl --dev ", data, "/dev.jsonl --vocab ", data,
                         "/vocab.json --seed ", seed));
    const Step tune = result(
        "tune", concat("asr tune --model ", run_folder(id), " --data ", kPrompts.file("dev"),
                       " --score words --lm ", arpa, " --lm-words --beam 32 --out ", decoder));
    cells.push_back(
        {id,
         6,
         12,
         {prompt_data(), training, decode("greedy", id, kPrompts, ""),
          score("greedy-score", kPrompts, hypotheses(id, "greedy")), lm, tune,
          decode("lm", id, kPrompts, " --decoder " + decoder),
          score("lm-score", kPrompts, hypotheses(id, "lm"), hypotheses(id, "greedy"))}});
  }
  // Its models are made for 16 kHz; the prompts come as G.722 of that rate too.
  const std::string sounds = "$ASTERISK/usr/share/asterisk/sounds/en_US_f_Allison";
  Cell peer{kPeerCell, 5, 12, {prompt_data()}, "pocketsphinx_batch"};
  for (const std::string band : {"wide", "narrow"}) {
    const std::string hyp = kData + "pocketsphinx-" + band + ".hyp";
    peer.steps.push_back({Step::result, band,
                          words(concat("peer_pocketsphinx.py ", kPrompts.file("test"), " ", hyp,
                                       band == "wide" ? " --g722 " + sounds : ""))});
    peer.steps.push_back(score(band + "-score", kPrompts, hyp));
  }
  cells.push_back(peer);
}

}  // namespace

std::string voice_cell(const std::string& unit, const std::string& loss, const std::string& variant,
                       int64_t seed) {
  return concat("festvox/", unit, "/", loss, "/", variant, "/seed", seed);
}

void add_recognisers(std::vector<Cell>& cells) {
  add_voice(cells);
  add_voice_lm(cells);
  add_digits(cells);
  add_prompts(cells);
  add_recordings(cells);
}

}  // namespace centroid::apps
