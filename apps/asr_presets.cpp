// The named settings of `asr train --preset`, and the choice among them by the size of the corpus.
#include <cstdio>

#include "apps/asr.h"
#include "apps/audio/manifest.h"
#include "tensor/error.h"

namespace centroid::apps {

const Presets& asr_presets() {
  // Small batches and rotary positions matter most for one speaker and about 1.3 hours, where
  // `festvox-ru` comes from; `one-hour` is the same with what it relies on written out. The larger
  // ones follow the proportions of published transformer recipes: a wider and deeper encoder,
  // larger batches, a longer warm-up, more and wider masks.
  static const Presets presets{{"festvox-ru-demo", {{"steps", 1000}, {"eval-every", 250}}},
                               {"festvox-ru", {{"steps", 1800}, {"eval-every", 300}}},
                               {"minutes",
                                {{"layers", 2},
                                 {"width", 144},
                                 {"hidden", 576},
                                 {"dropout", 0.2},
                                 {"lr", 1.5e-3},
                                 {"warmup", 100},
                                 {"steps", 1000},
                                 {"eval-every", 100},
                                 {"save-every", 500},
                                 {"batch-items", 8}}},
                               {"one-hour",
                                {{"layers", 4},
                                 {"width", 144},
                                 {"hidden", 576},
                                 {"dropout", 0.1},
                                 {"lr", 1.5e-3},
                                 {"warmup", 200},
                                 {"steps", 1800},
                                 {"eval-every", 300},
                                 {"batch-items", 8}}},
                               {"ten-hours",
                                {{"layers", 6},
                                 {"width", 256},
                                 {"hidden", 1024},
                                 {"dropout", 0.1},
                                 {"lr", 1e-3},
                                 {"warmup", 1500},
                                 {"steps", 15000},
                                 {"eval-every", 500},
                                 {"freq-width", 12},
                                 {"time-masks", 4},
                                 {"batch-items", 64},
                                 {"batch-frames", 32000}}},
                               {"hundred-hours",
                                {{"bins", 80},
                                 {"layers", 12},
                                 {"width", 256},
                                 {"hidden", 2048},
                                 {"dropout", 0.1},
                                 {"lr", 1e-3},
                                 {"warmup", 5000},
                                 {"steps", 60000},
                                 {"eval-every", 1000},
                                 {"save-every", 1000},
                                 {"freq-width", 27},
                                 {"time-masks", 10},
                                 {"time-width", 100},
                                 {"batch-items", 256},
                                 {"batch-frames", 64000}}}};
  return presets;
}

std::string asr_preset_help() {
  return "a named set of options; flags win. By the hours of sound: minutes (below 0.5), one-hour "
         "(below 3), ten-hours (below 30), hundred-hours; auto takes the one that fits --train. "
         "festvox-ru and one-hour, which has the same settings, were trained with Centroid, "
         "minutes "
         "once on 0.3 h of the same voice; ten-hours and hundred-hours are extrapolated from them "
         "and from published recipes and have not been trained";
}

std::string choose_asr_preset(const std::vector<std::string>& arguments) {
  const std::string path = argument_value(arguments, "train");
  CENTROID_CHECK(!path.empty(), "--preset auto: expected a manifest to measure (--train)");
  audio::ManifestReader reader(path);
  double seconds = 0;
  for (audio::Utterance u; reader.next(u);) {
    CENTROID_CHECK(u.duration > 0, path, ":", reader.line(),
                   ": --preset auto: expected a duration ", "of ", u.id,
                   ", got none (asr prepare writes them)");
    seconds += u.duration;
  }
  const double hours = seconds / 3600;
  const char* name = hours < 0.5  ? "minutes"
                     : hours < 3  ? "one-hour"
                     : hours < 30 ? "ten-hours"
                                  : "hundred-hours";
  std::fprintf(stderr, "preset auto: %s, for the %.2f h of %s\n", name, hours, path.c_str());
  return name;
}

}  // namespace centroid::apps
