// Features on disk, manifests by utterance, and work made ahead of time.
#include "apps/audio/feature_cache.h"

#include <atomic>
#include <nlohmann/json.hpp>

#include "apps/audio/checksum.h"
#include "apps/audio/manifest_index.h"
#include "apps/common/prefetch.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using centroid::apps::OrderedPrefetch;

namespace {

const std::vector<Features>& examples() {
  static const std::vector<Features> list = {
      {2, 3, {1, 2, 3, 4, 5, 6}}, {1, 3, {-1, 0, 1e-30f}}, {4, 3, std::vector<float>(12, 0.5f)}};
  return list;
}

std::string write_examples(const TempFolder& dir, uint64_t key = 77) {
  const std::string path = dir / "a.features";
  FeatureCacheWriter writer(path, 3, key);
  for (const Features& f : examples()) writer.add(f);
  CHECK_FALSE(std::filesystem::exists(path));  // nobody sees half a cache
  writer.commit();
  return path;
}

/// Whether the bytes are refused, at once or when the features are read.
bool refused(const std::string& bytes) {
  try {
    const FeatureCache cache(bytes, "bytes");
    for (int64_t i = 0; i < cache.size(); ++i) cache.read(i);
    return false;
  } catch (const centroid::Error&) {
    return true;
  }
}

}  // namespace

TEST_CASE("A feature cache gives back what was written", "[cache]") {
  TempFolder dir;
  const FeatureCache cache(write_examples(dir));
  REQUIRE(cache.size() == 3);
  CHECK(cache.columns() == 3);
  CHECK(cache.key() == 77);
  for (const int64_t i : {2, 0, 1}) {
    const Features f = cache.read(i);
    CHECK(f.frames == examples()[i].frames);
    CHECK(cache.frames(i) == f.frames);
    CHECK(f.bins == 3);
    CHECK(f.data == examples()[i].data);
  }
  CHECK_THROWS_AS(cache.read(3), centroid::Error);
  CHECK_THROWS_AS(cache.read(-1), centroid::Error);

  FeatureCacheWriter none(dir / "none.features", 5, 1);
  none.commit();
  CHECK(FeatureCache(dir / "none.features").size() == 0);
  FeatureCacheWriter wrong(dir / "wrong.features", 5, 1);
  CHECK_THAT(message_of([&] { wrong.add(examples()[0]); }), Contains("5 columns, got 2 of 3"));
  CHECK_THROWS_AS(wrong.add({0, 5, {}}), centroid::Error);
}

TEST_CASE("The format of feature caches is what it was", "[cache]") {
  TempFolder dir;
  CHECK(slurp(write_examples(dir)) == slurp("tests/data/small.features"));
}

TEST_CASE("No changed, missing or added byte of a feature cache passes", "[cache]") {
  TempFolder dir;
  const std::string bytes = slurp(write_examples(dir));
  CHECK_FALSE(refused(bytes));
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const int bit : {0, 3, 7}) {
      std::string bad = bytes;
      bad[i] = static_cast<char>(bad[i] ^ 1 << bit);
      INFO("byte " << i << ", bit " << bit);
      CHECK(refused(bad));
    }
  }
  for (size_t n = 0; n < bytes.size(); ++n) CHECK(refused(bytes.substr(0, n)));
  CHECK(refused(bytes + '\0'));
  CHECK(refused(bytes + bytes));
  CHECK_THAT(message_of([&] { FeatureCache(bytes.substr(0, 30), "short"); }),
             Contains("short: not a feature cache, or one that was cut off"));
}

TEST_CASE("The checksum tells lengths, orders and every single bit apart", "[cache]") {
  const std::string text = "0123456789abcdefXYZ";
  const auto of = [](const std::string& s, uint64_t state = 0) {
    return checksum(s.data(), s.size(), state);
  };
  CHECK(of(text) == of(text));
  CHECK(of(text) != of(text, 1));
  CHECK(of("") != of(std::string(1, '\0')));
  CHECK(of(std::string(8, '\0')) != of(std::string(16, '\0')));
  CHECK(of("b", of("a")) != of("a", of("b")));
  for (size_t i = 0; i < text.size() * 8; ++i) {
    std::string other = text;
    other[i / 8] = static_cast<char>(other[i / 8] ^ 1 << i % 8);
    CHECK(of(other) != of(text));
  }
}

TEST_CASE("A manifest's utterances are read again from their lines", "[cache]") {
  TempFolder dir;
  const std::string path =
      dir.write("m.jsonl",
                "\n{\"id\": \"a\", \"audio\": \"x.wav\", \"text\": \"one\"}\r\n   \n"
                "{\"id\": \"b\", \"audio\": \"/y.wav\", \"duration\": 2.5, \"phones\": [\"p\"]}\n\n"
                "{\"audio\": \"z/w.wav\", \"speaker\": \"s\"}");
  std::vector<std::string> seen;
  const ManifestIndex index(path, [&](const Utterance& u) { seen.push_back(u.id); });
  const std::vector<Utterance> all = read_manifest(path);
  REQUIRE(index.size() == 3);
  CHECK(seen == std::vector<std::string>{"a", "b", "z/w"});
  for (const int64_t i : {2, 0, 1, 0}) {
    const Utterance u = index.read(i);
    CHECK(u.id == all[i].id);
    CHECK(u.audio == all[i].audio);
    CHECK(u.text == all[i].text);
    CHECK(u.phones == all[i].phones);
    CHECK(u.speaker == all[i].speaker);
    CHECK(u.duration == all[i].duration);
  }
  CHECK_THROWS_AS(index.read(3), centroid::Error);
  CHECK(ManifestIndex(dir.write("empty.jsonl", "\n\n")).size() == 0);
  CHECK_THAT(message_of([&] { ManifestIndex(dir / "none.jsonl"); }), Contains("no such file"));
  CHECK_THAT(message_of([&] { ManifestIndex(dir.write("bad.jsonl", "{}\n")); }),
             Contains("bad.jsonl:1"));
  // Changed in place while it is open.
  std::ofstream(path, std::ios::binary | std::ios::in).seekp(20) << "?";
  CHECK_THAT(message_of([&] { index.read(0); }), Contains("changed while in use"));
}

TEST_CASE("Prefetched work comes in order from any number of threads", "[prefetch]") {
  for (const int workers : {0, 1, 2, 5}) {
    int planned = 0;
    std::atomic<int> ahead{0}, taken{0};
    OrderedPrefetch<int, std::string> prefetch(
        [&] { return planned++; },
        [&](const int& job) {
          ahead = std::max<int>(ahead, job - taken);
          if (job % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          return std::to_string(job);
        },
        workers, 4);
    for (int i = 0; i < 60; ++i) {
      CHECK(prefetch.next() == std::to_string(i));
      ++taken;
    }
    CHECK(ahead <= 5);  // 4, and one that was taken but not yet counted
    CHECK(prefetch.waited() >= 0);
  }
}

TEST_CASE("An error of prefetched work comes where its result would have been", "[prefetch]") {
  int planned = 0;
  OrderedPrefetch<int, int> prefetch([&] { return planned++; },
                                     [](const int& job) {
                                       if (job == 3) throw centroid::Error("job 3");
                                       return job;
                                     },
                                     3, 8);
  for (int i = 0; i < 3; ++i) CHECK(prefetch.next() == i);
  for (int i = 0; i < 3; ++i) CHECK_THROWS_WITH(prefetch.next(), "job 3");
  OrderedPrefetch<int, int> unplanned([]() -> int { throw centroid::Error("no plan"); },
                                      [](const int& job) { return job; }, 2, 2);
  CHECK_THROWS_WITH(unplanned.next(), "no plan");
}
