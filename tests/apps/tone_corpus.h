#pragma once
// Speech in miniature (tests/tones.h), prepared as a user prepares it, and a training that is
// killed.
#include <thread>

#include "tests/apps/process.h"
#include "tests/tones.h"

namespace centroid::test {

/// `count` tones in `tones/`, and the manifests and the vocabulary of their letters in `data/`.
struct ToneCorpus {
  explicit ToneCorpus(int count) {
    make_tones(dir / "tones", count);
    const Outcome prepared =
        run(dir, "asr",
            {"prepare", "--format", "table", "--source", dir / "tones", "--transcripts",
             dir / "tones/transcripts.tsv", "--unit", "characters", "--out", dir / "data"});
    if (prepared.code != 0) throw Error(prepared.err);
  }
  std::string data(const std::string& name) const { return dir / ("data/" + name); }
  TempDir dir;
};

/// Runs a training into `folder` and kills it once its first checkpoint is there.
inline void train_and_kill(const TempDir& dir, const Words& words, const std::string& folder) {
  Process process(dir, "asr", words);
  while (process.running() && !std::filesystem::exists(folder + "/last.safetensors")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  process.signal(SIGKILL);
  process.wait();
}

}  // namespace centroid::test
