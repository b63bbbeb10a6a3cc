// asr: speech recognition with CTC, from a corpus to transcripts.
#include "apps/asr.h"

#include "apps/common/args.h"

int main(int argc, char** argv) {
  using namespace centroid::apps;
  CLI::App app{"Speech recognition: prepare a corpus, train a recogniser, evaluate and use it."};
  app.require_subcommand(1);
  register_prepare(app);
  register_features(app);
  register_train(app);
  register_eval(app);
  register_lm(app);
  register_tune(app);
  register_transcribe(app);
  register_join(app);
  register_align(app);
  register_score(app);
  register_average(app);
  return run_app(argc, argv, app, asr_presets(), choose_asr_preset);
}
