// The rules that choose sets.
#include "apps/audio/split.h"

#include <algorithm>
#include <map>

#include "apps/audio/files.h"
#include "apps/audio/string_table.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;

namespace {

Strings ids(const std::vector<Utterance>& utterances) {
  Strings out;
  for (const Utterance& u : utterances) out.push_back(u.id);
  return out;
}

std::vector<Utterance> numbered(int count) {
  std::vector<Utterance> all(count);
  for (int i = 1; i <= count; ++i) {
    all[i - 1].id = "u" + std::to_string(10000 + i);
    all[i - 1].speaker = i % 2 ? "odd" : "even";
  }
  return all;
}

// What the rule makes of the utterances; `bad` ids are seen, but cannot be used.
Splits split(std::unique_ptr<Split> rule, const std::vector<Utterance>& all,
             const Strings& bad = {}, std::vector<Problem>* problems = nullptr) {
  for (const Utterance& u : all) rule->see(u.id, u.speaker);
  for (const std::string& id : bad) rule->see(id, "");
  std::vector<Problem> found;
  rule->close(found);
  Splits splits;
  for (const Utterance& u : all) {
    const std::optional<Set> set = rule->choose(u);
    if (!set) {
      found.push_back({u.id, "in no set", ProblemKind::not_listed});
      continue;
    }
    (*set == Set::train ? splits.train : *set == Set::dev ? splits.dev : splits.test).push_back(u);
  }
  if (problems) *problems = found;
  return splits;
}

}  // namespace

TEST_CASE("Every 10th: 62 of 620 for test and dev, and a bad file shifts nothing", "[split]") {
  std::vector<Utterance> all = numbered(620);
  std::reverse(all.begin(), all.end());
  const Splits splits = split(split_every_10th(), all);
  CHECK(splits.test.size() == 62);
  CHECK(splits.dev.size() == 62);
  CHECK(splits.train.size() == 496);
  CHECK(splits.test.back().id == "u10010");
  CHECK(splits.dev.back().id == "u10005");
  const Strings bad = {all.back().id};
  all.pop_back();
  CHECK(ids(split(split_every_10th(), all, bad).test) == ids(splits.test));
  CHECK(ids(split(split_every_10th(), all, bad).dev) == ids(splits.dev));
  CHECK(ids(split(split_every_10th(), all).dev) != ids(splits.dev));
}

TEST_CASE("The lists of festvox-ru in the repository are the rule's", "[split]") {
  const std::string stem =
      (centroid::test::repository_root() / "apps/audio/splits/festvox-ru.").string();
  const Strings train = read_lines(stem + "train.txt"), dev = read_lines(stem + "dev.txt"),
                test = read_lines(stem + "test.txt");
  std::vector<Utterance> all;
  for (const Strings* list : {&train, &dev, &test}) {
    for (const std::string& id : *list) all.emplace_back().id = id;
  }
  const Splits splits = split(split_every_10th(), all);
  CHECK(ids(splits.train) == train);
  CHECK(ids(splits.dev) == dev);
  CHECK(ids(splits.test) == test);
  CHECK(train.size() == 496);
}

TEST_CASE("Hash split: about the fractions, and stable when others come and go", "[split]") {
  const std::vector<Utterance> all = numbered(5000);
  const Splits splits = split(split_by_hash(0.1, 0.2), all);
  CHECK(std::abs(static_cast<int>(splits.dev.size()) - 500) < 80);
  CHECK(std::abs(static_cast<int>(splits.test.size()) - 1000) < 110);
  CHECK(splits.train.size() + splits.dev.size() + splits.test.size() == 5000);
  const Strings fewer = ids(split(split_by_hash(0.1, 0.2), numbered(1000)).test);
  Strings first = ids(splits.test);
  first.resize(fewer.size());
  CHECK(fewer == first);
  CHECK(split(split_by_hash(0, 0), all).train.size() == 5000);
  CHECK_THROWS_AS(split_by_hash(0.5, 0.5), centroid::Error);
  CHECK_THROWS_AS(split_by_hash(NAN, 0.5), centroid::Error);
}

TEST_CASE("Splits by speaker and by lists of ids", "[split]") {
  const std::vector<Utterance> all = numbered(6);
  const Splits speakers = split(split_by_speaker({}, {"even"}), all);
  CHECK(speakers.test.size() == 3);
  CHECK(speakers.train.size() == 3);
  CHECK_THAT(message_of([&] { split(split_by_speaker({}, {"none"}), all); }),
             Contains("speaker none") && Contains("even, odd"));
  CHECK_THAT(message_of([&] { split_by_speaker({"odd"}, {"odd"}); }),
             Contains("for dev and for test"));

  TempFolder folder;
  const std::string dev = folder.write("dev", "u10002\n"),
                    test = folder.write("test", "u10006\nu10003\n\n");
  std::vector<Problem> bad;
  const Splits lists = split(split_by_lists("", dev, test), all, {}, &bad);
  CHECK(bad.empty());
  CHECK(ids(lists.dev) == Strings{"u10002"});
  CHECK(ids(lists.test) == Strings{"u10003", "u10006"});
  CHECK(lists.train.size() == 3);
  const std::string train = folder.write("train", "u10001\nu99999\n");
  split(split_by_lists(train, dev, test), all, {}, &bad);
  REQUIRE(bad.size() == 3);
  CHECK(bad[0].id == "u99999");
  CHECK(bad[0].kind == ProblemKind::not_listed);
  CHECK(bad[1].id == "u10004");
  CHECK_THAT(message_of([&] { split_by_lists(train, train, ""); }), Contains("listed twice"));
}

TEST_CASE("A table of strings finds what a map finds", "[split]") {
  StringTable table;
  CHECK(table.sort().empty());
  CHECK(table.find("a") == StringTable::kNone);
  std::map<std::string, std::string> expected;
  Strings repeated;
  centroid::Rng rng(1, "table");
  for (int i = 0; i < 2000; ++i) {
    const std::string key(rng.below(3), static_cast<char>('a' + rng.below(26)));
    const std::string full = key + std::to_string(rng.below(400));
    table.add(full, std::to_string(i));
    if (!expected.emplace(full, std::to_string(i)).second) repeated.push_back(full);
  }
  CHECK(table.sort() == repeated);
  REQUIRE(table.size() == expected.size());
  size_t at = 0;
  for (const auto& [key, rest] : expected) {
    CHECK(table.key(at) == key);
    CHECK(table.rest(at) == rest);
    CHECK(table.find(key) == at++);
    CHECK((table.find(key + "x") == StringTable::kNone));
  }
}

TEST_CASE("By text: what is spoken twice is in one set, whatever its case and marks", "[split]") {
  std::vector<Utterance> all = numbered(400);
  for (size_t i = 0; i < all.size(); ++i) {
    all[i].text = (i < 200 ? "Sentence number " : "sentence, number ") + std::to_string(i % 200);
  }
  const Splits splits = split(split_by_text(0.1, 0.2), all);
  std::map<std::string, std::string> set_of;
  const auto file = [&](const std::vector<Utterance>& set, const std::string& name) {
    for (const Utterance& u : set) {
      const std::string number = u.text.substr(u.text.rfind(' '));
      CHECK(set_of.emplace(number, name).first->second == name);
    }
  };
  file(splits.train, "train");
  file(splits.dev, "dev");
  file(splits.test, "test");
  CHECK(set_of.size() == 200);
  CHECK(splits.test.size() >= 50);
  CHECK(splits.test.size() <= 110);
  CHECK(!splits.dev.empty());
}
