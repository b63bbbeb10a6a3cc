// The cells of the report: every experiment as commands.
#include <algorithm>
#include <cmath>

#include "apps/report_steps.h"
#include "tensor/error.h"

namespace centroid::apps {

namespace {

// ---- scaling ----------------------------------------------------------------------------------

// All variants of a length in one run: its rounds are interleaved. But full attention to long
// sequences takes minutes.
void add_scaling(std::vector<Cell>& cells) {
  for (int64_t length : kScalingLengths) {
    std::string variants;
    for (const Variant& v : kScalingVariants) {
      if (v.name == "full" && length > kLongestTurn) continue;
      variants += (variants.empty() ? "" : ",") + v.attention;
    }
    const std::string line = concat("bench attention --lengths ", length, " --variants ", variants);
    Cell cell{concat("scaling/L", length), 0.5, 0, {result("bench", line)}};
    if (length > kLongestTurn) {
      cell.minutes = 6.0 * std::pow(static_cast<double>(length) / 65536, 2);
      cell.steps.push_back(
          result("full", concat("bench attention --lengths ", length, " --max-full ", length,
                                " --variants full --rounds 1")));
    }
    cells.push_back(cell);
  }
}

// ---- masked copy ------------------------------------------------------------------------------

// Batches hold as many symbols at every length, so that a step costs about the same. A training
// has converged when its loss is 0.005 nats, about one wrong symbol in a thousand, or when its rate
// is 0.
Cell copy_cell(const std::string& id, const std::string& attention, int64_t length) {
  Step training =
      train(id, concat("copy train --task masked --length ", length, " --batch ", 4096 / length,
                       " --attention ", attention,
                       " --steps 3000 --eval-every 100 --save-every 500 --stop-at 0.005"));
  const int rank = length == 64 ? 1 : length == 128 ? 5 : 8;
  return {id, 3, rank, {training, result("test", "copy eval --model " + run_folder(id))}};
}

void add_copy(std::vector<Cell>& cells) {
  for (int64_t length : kCopyLengths) {
    cells.push_back(copy_cell(concat("copy/full/len", length), "full", length));
    for (const CopyFamily& f : kCopyFamilies) {
      for (int64_t setting : f.settings) {
        cells.push_back(copy_cell(concat("copy/", f.name, "/len", length, "/", f.letter, setting),
                                  concat(f.name, ":", f.option, "=", setting), length));
      }
    }
  }
}

// ---- speech -----------------------------------------------------------------------------------

// Two input frames per position: 480 positions for the average sentence. With the demo's four
// there would be 240, where attention is a small part of the work; with one, 960, trainings take
// three times as long as here.
Step speech_training(const SpeechModel& m, int64_t seed) {
  const std::string data = "$WORK/data/festvox-ru/";
  return train(concat("speech/", m.name, "/seed", seed),
               concat("asr train --train ", data, "train.jsonl --dev ", data, "dev.jsonl --vocab ",
                      data, "vocab.json --subsampling 2 --layers ", m.layers, " --attention ",
                      m.attention, " --steps 1000 --eval-every 250 --seed ", seed));
}

Step speech_test(const std::string& run, const std::string& attention) {
  const std::string swapped = attention.empty() ? "" : " --attention " + attention;
  return result("test", concat("asr eval --model ", run_folder(run),
                               " --data $WORK/data/festvox-ru/test.jsonl", swapped));
}

const SpeechModel& speech_model(const std::string& name) {
  for (const SpeechModel& m : kSpeechModels) {
    if (m.name == name) return m;
  }
  throw Error("report: no speech model " + name);
}

void add_speech(std::vector<Cell>& cells) {
  const auto is_swapped = [](const std::string& name) {
    return std::find(kSwapTrained.begin(), kSwapTrained.end(), name) != kSwapTrained.end();
  };
  for (const SpeechModel& m : kSpeechModels) {
    for (int64_t seed = 1; seed <= m.seeds; ++seed) {
      const Step training = speech_training(m, seed);
      Step test = speech_test(training.name, "");
      test.repeat = 3;  // for the median of its time
      const int rank = seed == 2 ? 7 : is_swapped(m.name) ? 2 : 4;
      cells.push_back({training.name, 2.0 * m.layers, rank, {speech_data(), training, test}});
    }
  }
  for (const std::string& trained : kSwapTrained) {
    const Step training = speech_training(speech_model(trained), 1);
    for (const Variant& v : kSwapEvaluated) {
      const Step test = speech_test(training.name, v.attention);
      const std::string id = concat("speech/eval/", trained, "-as-", v.name);
      cells.push_back({id, 0.2, 3, {speech_data(), training, test}});
    }
  }
}

// ---- long speech ------------------------------------------------------------------------------

Step digits(const std::string& name, const std::string& line) {
  return {Step::prepare, name,
          words("asr prepare --format digits --source $FSDD --unit words --leave-out theo " + line +
                " --out $WORK/data/" + name)};
}

// From scratch, long sequences are not learnt in so few steps: a training on short ones comes
// first.
void add_long(std::vector<Cell>& cells) {
  for (const Variant& v : kLongVariants) {
    const std::string run = "long/" + v.name, first = run + "-short", data = "$WORK/data/digits";
    const auto training = [&](const std::string& name, const std::string& set,
                              const std::string& options) {
      return train(name, concat("asr train --train ", data, set, "/train.jsonl --dev ", data, set,
                                "/dev.jsonl --vocab ", data, set, "/vocab.json --rate 8000 ",
                                "--subsampling 2 --layers 3 --batch-items 16 --attention ",
                                v.attention, options));
    };
    Cell cell{run, 20, 6, {}};
    cell.steps.push_back(digits("digits-short",
                                "--min-seconds 3 --max-seconds 8 --train-sequences 1200 "
                                "--dev-sequences 40 --test-sequences 1"));
    cell.steps.push_back(
        training(first, "-short", " --steps 1000 --eval-every 250 --speed-perturb 0.9,1.0,1.1"));
    cell.steps.push_back(digits("digits",
                                "--min-seconds 5 --max-seconds 60 --train-sequences 240 "
                                "--dev-sequences 20 --test-sequences 1"));
    cell.steps.push_back(training(run, "",
                                  " --batch-frames 6100 --start-from " + run_folder(first) +
                                      " --lr 5e-4 --warmup 50 --steps 250 --eval-every 125"));
    for (int64_t s : kLongSeconds) {
      const std::string set = concat("digits-", s, "s");
      cell.steps.push_back(digits(
          set, concat("--min-seconds ", s, " --max-seconds ", s,
                      " --train-sequences 1 --dev-sequences 1 ", "--test-sequences ", 600 / s)));
      cell.steps.push_back(result(
          concat(s, "s"),
          concat("asr eval --model ", run_folder(run), " --data $WORK/data/", set, "/test.jsonl")));
      cell.steps.back().repeat = 3;
    }
    cells.push_back(cell);
  }
}

// ---- swapping without retraining --------------------------------------------------------------

void add_swap(std::vector<Cell>& cells) {
  const Step training = speech_training(speech_model("full-l4"), 1);
  const auto add = [&](const std::string& name, const std::string& attention) {
    const Step map = result("map", concat("attention-map --model ", run_folder(training.name),
                                          " --data $WORK/data/festvox-ru/test.jsonl --id ru_0142 "
                                          "--out $WORK/map.png --attention ",
                                          attention));
    const Step test = speech_test(training.name, attention);
    cells.push_back({"swap/" + name, 0.3, 3, {speech_data(), training, test, map}});
  };
  add("full", "full");
  for (int64_t c : kSwapClusters) {
    for (int64_t k : kSwapTopk) {
      add(concat("c", c, "-k", k), k == 0 ? concat("clustered:clusters=", c)
                                          : concat("improved-clustered:clusters=", c, ",topk=", k));
    }
  }
}

}  // namespace

Step speech_data() {
  return {Step::prepare, "festvox-ru",
          words("asr prepare --format festvox --source $FESTVOX_RU --unit phones "
                "--split every-10th --check headers --out $WORK/data/festvox-ru")};
}

// ---- all --------------------------------------------------------------------------------------

std::string shell_line(const Words& words) {
  std::string line;
  for (const std::string& word : words) {
    const bool plain = word.find_first_of(" ()'\"\\&|;<>*?`") == std::string::npos;
    line += (line.empty() ? "" : " ") + (plain ? word : '\'' + word + '\'');
  }
  return line;
}

Words Cell::commands() const {
  Words lines;
  for (const Step& step : steps) lines.push_back(shell_line(step.words));
  return lines;
}

std::string Cell::data() const {
  for (const Step& step : steps) {
    for (const std::string& word : step.words) {
      if (!word.starts_with('$')) continue;
      const std::string name = word.substr(1, word.find('/') - 1);
      if (name != "WORK" && name != "SCRIPTS") return name;
    }
  }
  return "";
}

std::vector<Cell> report_cells(bool smoke) {
  std::vector<Cell> cells;
  if (smoke) {
    Cell cell = copy_cell("smoke/copy", "full", 16);
    cell.steps[0].words = words(
        "copy train --task masked --length 16 --alphabet 3 --width 32 --hidden 64 --heads 2 "
        "--batch 16 --steps 400 --eval-every 20 --save-every 20 --lr 0.01 --warmup 10 "
        "--eval-batches 2 --stop-at 0.9 --out $WORK/runs/smoke/copy");
    cells.push_back(cell);
  }
  add_scaling(cells);
  add_copy(cells);
  add_speech(cells);
  add_long(cells);
  add_swap(cells);
  add_recognisers(cells);
  return cells;
}

}  // namespace centroid::apps
