// The help group "Decoding", and files of its options.
#include <algorithm>

#include "apps/asr_decode.h"
#include "apps/common/args.h"
#include "tensor/error.h"

namespace centroid::asr {

void add_decode_options(CLI::App& command, DecodeOptions& options) {
  options.command = &command;
  const char* group = "Decoding";
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    options.names.push_back(name.substr(2));
    return command.add_option(name, value, help)->capture_default_str()->group(group);
  };
  audio::BeamOptions& o = options.search;
  add("--beam", o.beam,
      concat("Hypotheses kept; 1: greedy; 0: 1, or ", kDefaultBeam, " with --lm or --lexicon"))
      ->check(CLI::Range(0, 1000000));
  add("--nbest", o.nbest, "Transcripts given per utterance at most")->check(CLI::Range(1, 1000000));
  add("--lm", options.lm, "Language model: an ARPA file, plain or .gz (asr lm trains one)");
  add("--lm-unit", options.lm_unit, "What the LM predicts: the recogniser's tokens, or words")
      ->check(CLI::IsMember({"auto", "tokens", "words"}));
  add("--lm-weight", o.lm_weight, "Weight of the LM's log probability (asr tune finds a good one)")
      ->check(apps::non_negative());
  add("--word-score", o.word_score,
      "Added for each word; for each token with an LM of tokens or where words are not known")
      ->check(apps::in_range(-1e6, 1e6));
  add("--unk-score", o.unk_score, "Added to the LM's natural logarithm for what it does not know")
      ->check(apps::in_range(-1e6, 0));
  add("--lexicon", options.lexicon,
      "Only words of this lexicon (Kaldi's lexicon.txt or lexiconp.txt, CMU dictionary) are found");
  add("--silence", o.silence, "With a lexicon: a token that may stand between words");
  add("--token-threshold", o.token_threshold,
      "Tokens whose log probability is more than this below the frame's best are not tried")
      ->check(apps::non_negative());
  add("--score-threshold", o.score_threshold,
      "Hypotheses whose score is more than this below the best are dropped")
      ->check(apps::non_negative());
  const auto add_switch = [&](const std::string& name, bool& value, const std::string& help) {
    options.names.push_back(name);
    apps::add_switch(command, name, value, help)->group(group);
  };
  add_switch("look-ahead", o.look_ahead, "Rank unfinished words by the best word they may become");
  add_switch("lm-words", options.lm_words,
             "Only words of the LM are found, spelled in characters: no lexicon is needed");
  add_switch("lexicon-skip", options.lexicon_skip,
             "Leave out pronunciations with symbols that the recogniser lacks");
  command
      .add_option("--decoder", options.file,
                  "JSON file with these options, as asr tune writes it; what is typed wins")
      ->group(group);
}

void read_decoder_file(DecodeOptions& options) {
  if (options.file.empty()) return;
  CLI::App& command = *options.command;
  const nlohmann::ordered_json config = apps::read_config(options.file);
  for (const auto& [key, value] : config.items()) {
    CENTROID_CHECK(std::count(options.names.begin(), options.names.end(), key), options.file,
                   ": expected an option of decoding, got \"", key, "\" (nearest: \"",
                   apps::nearest(key, options.names), "\")");
  }
  std::vector<std::string> typed;
  for (const std::string& name : options.names) {
    if (command.get_option("--" + name)->count() > 0) typed.push_back("--" + name);
  }
  const auto arguments = apps::config_arguments(command, config, options.file, typed);
  for (size_t i = 0; i < arguments.size(); ++i) {
    const size_t equals = std::min(arguments[i].find('='), arguments[i].size());
    CLI::Option* option = command.get_option(arguments[i].substr(0, equals));
    // An empty text comes as an argument of its own.
    const std::string value =
        equals < arguments[i].size() ? arguments[i].substr(equals + 1) : arguments[++i];
    try {
      option->add_result(value);
      option->run_callback();
    } catch (const CLI::Error& error) {
      throw Error(concat(options.file, ": ", error.what()));
    }
  }
}

}  // namespace centroid::asr
