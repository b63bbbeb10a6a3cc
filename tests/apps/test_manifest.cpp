// Manifests: round trip, foreign keys, and what is said about bad lines.
#include "apps/audio/manifest.h"

#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/audio/base64.h"
#include "apps/audio/files.h"
#include "apps/audio/id_set.h"
#include "apps/audio/manifest_index.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using centroid::concat;

TEST_CASE("A manifest written is read back, and its folder can be moved", "[manifest]") {
  TempFolder folder;
  fs::create_directories(folder / "a/wav");
  std::vector<Utterance> written(2);
  written[0] = {"one", folder / "a/wav/one.wav", 0, 1.25, "Съешь ещё \"булок\"\t\\", {"a", "b'"},
                "mary"};
  written[1] = {"two", "/elsewhere/two.flac", 0.5, 0.1, "", {}, ""};
  write_manifest(folder / "a/train.jsonl", written);
  fs::rename(folder / "a", folder / "b");
  const std::vector<Utterance> read = read_manifest(folder / "b/train.jsonl");
  REQUIRE(read.size() == 2);
  CHECK(read[0].id == "one");
  CHECK(read[0].audio == folder / "b/wav/one.wav");
  CHECK(read[0].text == written[0].text);
  CHECK(read[0].phones == written[0].phones);
  CHECK(read[0].speaker == "mary");
  CHECK(read[0].offset == 0);
  CHECK(read[0].duration == 1.25);
  CHECK(read[1].audio == "/elsewhere/two.flac");
  CHECK(read[1].offset == 0.5);
  CHECK(read[1].duration == 0.1);
  CHECK(read[1].phones.empty());
}

TEST_CASE("NeMo's keys, blank lines, other keys and missing ids are accepted", "[manifest]") {
  TempFolder folder;
  const std::string path = folder.write(
      "m.jsonl",
      "{\"audio_filepath\": \"x/a.wav\", \"duration\": 2, \"text\": \"hi\", \"lang\": \"en\"}\r\n"
      "\n"
      "{\"audio\": \"/x/a.wav\", \"offset\": 1.5, \"speaker\": null}");
  const std::vector<Utterance> read = read_manifest(path);
  REQUIRE(read.size() == 2);
  CHECK(read[0].id == "x/a");
  CHECK(read[0].audio == folder / "x/a.wav");
  CHECK(read[1].id == "/x/a@1.5");
  CHECK(read[1].audio == "/x/a.wav");
  CHECK(read_manifest(folder.write("empty.jsonl", "")).empty());
}

TEST_CASE("A bad line is named with its file, number and fault", "[manifest]") {
  TempFolder folder;
  const std::string good = R"({"id": "a", "audio": "a.wav"})";
  const auto says = [&](const std::string& line, const std::string& what) {
    const std::string path = folder.write("m.jsonl", good + "\n" + line + "\n");
    CHECK_THAT(message_of([&] { read_manifest(path); }), Contains(path + ":2: ") && Contains(what));
  };
  says("{\"id\": \"b\", \"audio", "not a line of JSON");
  says("[1, 2]", "JSON object");
  says("{\"id\": \"b\"}", "audio: missing");
  says(R"({"id": "b", "audio": 3})", "audio: expected a string, got 3");
  says(good, "a appears twice");
  says(R"({"audio": "b.wav", "duration": -1})", "duration: expected seconds >= 0, got -1");
  says(R"({"audio": "b.wav", "offset": "0"})", "offset: expected seconds");
  says(R"({"audio": "b.wav", "duration": NaN})", "not a line of JSON");
  says(R"({"audio": "b.wav", "duration": 1e999})", "not a line of JSON");
  says(R"({"audio": "b.wav", "phones": "a b"})", "phones: expected a list");
  says(R"({"audio": "b.wav", "phones": ["a", 1]})", "phones");
  says("{\"audio\": \"b\\u0000.wav\"}", "NUL");
  says("{\"audio\": \"b\xff.wav\"}", "not a line of JSON");
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  for (const char* key : {"id", "duration", "phones", "x"}) {
    says(concat("{\"audio\": \"b.wav\", \"", key, "\": ", deep, "}"), "inside each other");
  }
  CHECK_THAT(message_of([&] { read_manifest(folder / "none.jsonl"); }),
             Contains("none.jsonl: no such file"));
  CHECK_THAT(message_of([&] { read_manifest(folder.path()); }), Contains("folder"));
}

TEST_CASE("A manifest that cannot be written leaves nothing behind", "[manifest]") {
  TempFolder folder;
  Utterance bad;
  bad.id = "b";
  bad.audio = "x.wav";
  bad.text = "\xff\xfe";
  CHECK_THAT(message_of([&] { write_manifest(folder / "m.jsonl", {bad}); }),
             Contains("utterance b"));
  CHECK(fs::is_empty(folder.path()));
  CHECK_THAT(message_of([&] { write_manifest(folder / "no/m.jsonl", {}); }),
             Contains("No such file or directory"));
}

TEST_CASE("Text files: line ends, byte order mark, gzip, and bytes that are no text",
          "[manifest]") {
  TempFolder folder;
  CHECK(read_lines(folder.write("a", "\xEF\xBB\xBFone\r\n\ntwo")) ==
        std::vector<std::string>{"one", "", "two"});
  CHECK(read_lines(folder.write("a", "")).empty());
  CHECK_THAT(message_of([&] { read_lines(folder.write("a", "x\n\xff\n")); }),
             Contains(":2: expected UTF-8"));
  CHECK_THAT(message_of([&] { read_lines(folder.write("a", std::string("x\0y", 3))); }),
             Contains("NUL"));
  // printf 'one\ntwo\n' | gzip -n
  const std::string gz(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\xcf\x4b\xe5\x2a\x29\xcf\xe7\x02\x00\xe6\x0b\xba"
      "\x12\x08\x00\x00\x00",
      28);
#ifdef CENTROID_HAVE_ZLIB
  CHECK(read_lines(folder.write("a.gz", gz)) == std::vector<std::string>{"one", "two"});
  CHECK_THAT(message_of([&] { read_lines(folder.write("a.gz", gz.substr(0, 20))); }),
             Contains("truncated or corrupt gzip"));
  CHECK_THAT(message_of([&] { read_lines(folder.write("a.gz", "plain text")); }),
             Contains("expected gzip"));
#else
  CHECK_THAT(message_of([&] { read_lines(folder.write("a.gz", gz)); }), Contains("gunzip"));
#endif
}

namespace {

// Text lines that are made when they are read: a file of any length without the file.
class Lines : public std::streambuf {
 public:
  Lines(int64_t count, std::function<std::string(int64_t)> line)
      : count_(count), line_(std::move(line)) {}

 protected:
  int_type underflow() override {
    if (at_ == count_) return traits_type::eof();
    text_ = line_(at_++) + "\n";
    setg(text_.data(), text_.data(), text_.data() + text_.size());
    return traits_type::to_int_type(text_[0]);
  }

 private:
  int64_t count_, at_ = 0;
  std::function<std::string(int64_t)> line_;
  std::string text_;
};

class LineStream : public std::istream {
 public:
  LineStream(int64_t count, std::function<std::string(int64_t)> line)
      : std::istream(nullptr), lines_(count, std::move(line)) {
    init(&lines_);
  }

 private:
  Lines lines_;
};

}  // namespace

TEST_CASE("200,000 lines: ids cost a few bytes each, and the one repeated is found", "[manifest]") {
  constexpr int64_t kLines = 200000;
  const auto line = [](int64_t i) {
    return R"({"id": "speaker-)" + std::to_string(i % 977) + "-utterance-" + std::to_string(i) +
           R"(", "audio": "a.wav", "duration": 1.5, "text": "some words"})";
  };
  ManifestReader reader(std::make_unique<LineStream>(kLines, line), "big", ".");
  int64_t count = 0;
  for (Utterance u; reader.next(u);) ++count;
  CHECK(count == kLines);
  CHECK(reader.memory() <= 64 * kLines);
  ManifestReader again(
      std::make_unique<LineStream>(kLines, [&](int64_t i) { return line(i == 150000 ? 7 : i); }),
      "big", ".");
  CHECK_THAT(message_of([&] {
               for (Utterance u; again.next(u);) {
               }
             }),
             Contains("big:150001: id: speaker-7-utterance-7 appears twice"));
}

TEST_CASE("A set of ids agrees with a set of strings", "[manifest]") {
  IdSet ids;
  std::set<std::string> strings;
  CHECK_FALSE(ids.contains(""));
  centroid::Rng rng(1, "ids");
  for (int i = 0; i < 20000; ++i) {
    // Short strings of few letters: many repeat, many differ in one place.
    std::string id;
    for (uint64_t n = rng.below(6); n > 0; --n) id += static_cast<char>(rng.below(5));
    CHECK(ids.contains(id) == strings.contains(id));
    CHECK(ids.insert(id) == strings.insert(id).second);
    REQUIRE(ids.size() == strings.size());
  }
  CHECK(ids.bytes() <= 64 * ids.size() + 256);
}

TEST_CASE("Manifests may be compressed", "[manifest]") {
#ifdef CENTROID_HAVE_ZLIB
  TempFolder folder;
  // printf '{"id": "a", "audio": "a.wav"}\n' | gzip -n
  const std::string gz =
      from_base64("H4sIAAAAAAAAA6tWykxRslJQSlTSARKlKZn5YJ5eeWKZUi0XAGURk/IeAAAA");
  const std::string path = folder.write("m.jsonl.gz", gz);
  CHECK(read_manifest(path)[0].id == "a");

  // An index reads it again from a temporary file, of which nothing is left.
  const char* before = std::getenv("TMPDIR");
  const std::string old = before ? before : "";
  fs::create_directories(folder / "tmp");
  ::setenv("TMPDIR", (folder / "tmp").c_str(), 1);
  {
    const ManifestIndex index(path);
    CHECK(fs::is_empty(folder / "tmp"));
    CHECK(index.read(0).id == "a");
    CHECK_THAT(message_of([&] { ManifestIndex(folder.write("cut.gz", gz.substr(0, 30))); }),
               Contains("truncated or corrupt gzip"));
    CHECK(fs::is_empty(folder / "tmp"));
    fs::remove_all(folder / "tmp");
    CHECK_THAT(message_of([&] { ManifestIndex{path}; }), Contains("TMPDIR"));
  }
  before ? ::setenv("TMPDIR", old.c_str(), 1) : ::unsetenv("TMPDIR");
#endif
}
