// The readers of corpora, on small imitations of each, with every kind of fault.
#include "apps/audio/prepare.h"

#include <algorithm>
#include <map>
#include <set>

#include "apps/audio/files.h"
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

std::map<std::string, std::string> problems(const Prepared& prepared) {
  std::map<std::string, std::string> out;
  for (const Problem& p : prepared.problems) out[p.id] += p.what;
  return out;
}

Prepared checked(Prepared prepared, Unit unit = Unit::characters) {
  check_utterances(prepared, {.unit = unit});
  return prepared;
}

Prepared numbered(int count) {
  Prepared prepared;
  for (int i = 1; i <= count; ++i) {
    Utterance u;
    u.id = "u" + std::to_string(10000 + i);
    u.speaker = i % 2 ? "odd" : "even";
    prepared.utterances.push_back(u);
  }
  return prepared;
}

}  // namespace

TEST_CASE("Festvox: text without stress marks, phones without pauses, faults by id") {
  TempFolder folder;
  const std::string voice = "usr/share/voice/";
  folder.write(voice + "etc/txt.done.data",
               "( ru_1 \"Глаз+а, \\\"да\\\"\" )\n( ru_2 \"два\" )\n\n( ru_3 \"три\" )\n( ru_4 "
               "\"четыре\" )\nnonsense\n( ru_6 \"шесть\" )\n");
  for (const char* id : {"1", "2", "3", "6"}) folder.write_tone(voice + "wav/ru_" + id + ".wav");
  folder.write(voice + "lab/ru_1.lab",
               "separator ;\n#\n0.01 125 pau\n0.05 125 g\n0.09 125 ll\n0.1 125 pau\n");
  folder.write(voice + "lab/ru_2.lab", "#\n0.05 125 d\n0.02 125 v\n");
  folder.write(voice + "lab/ru_3.lab", "0.05 125 t\n");
  folder.write(voice + "lab/ru_4.lab", "#\n0.05 125 ch\n");
  folder.write(voice + "lab/ru_6.lab", "#\n0.05 125 pau\n");
  const Prepared found = checked(prepare_festvox(folder.path()), Unit::phones);
  REQUIRE(found.utterances.size() == 1);
  const Utterance& u = found.utterances[0];
  CHECK(u.id == "ru_1");
  CHECK(u.text == "Глаза, \"да\"");
  CHECK(u.phones == Strings{"g", "ll"});
  CHECK(u.duration == Approx(0.1));
  const auto bad = problems(found);
  CHECK(bad.size() == 5);
  CHECK_THAT(bad.at("ru_2"), Contains("ru_2.lab:3: the labels go back in time"));
  CHECK_THAT(bad.at("ru_3"), Contains("line #"));
  CHECK_THAT(bad.at("ru_4"), Contains("ru_4.wav: no such file"));
  CHECK_THAT(bad.at("ru_6"), Contains("no phones"));
  CHECK_THAT(problems(found).begin()->second, Contains("expected ( ID \"text\" ), got nonsense"));
  CHECK(prepare_festvox(folder / "usr/share/voice", true).utterances[0].phones ==
        Strings{"pau", "g", "ll", "pau"});
  CHECK_THAT(message_of([&] { prepare_festvox(folder / "usr/share/voice/wav"); }),
             Contains("found none"));
  CHECK_THAT(message_of([&] { prepare_festvox(folder / "nowhere"); }), Contains("does not exist"));
}

TEST_CASE("Asterisk: remarks are no speech, single figures become words") {
  TempFolder folder;
  const std::string text =
      folder.write("t.txt",
                   "; comment\n\ndigits/1: one\nmenu: Please press 1 or 2, dial 4242 at 28.8 or "
                   "1.5.\nbeep: [a beep]\n"
                   "silence/1: (1 second of silence)\nletters/at: at [@]\nno colon\nlost: Lost.\n");
  for (const char* key : {"digits/1", "menu", "beep", "silence/1", "letters/at"})
    folder.write_tone(std::string("s/") + key + ".wav");
  const Prepared found = checked(prepare_asterisk(folder / "s", text));
  CHECK(ids(found.utterances) == Strings{"digits/1", "menu", "letters/at"});
  CHECK(found.utterances[1].text == "Please press one or two, dial 4242 at 28.8 or 1.5.");
  CHECK(found.utterances[2].text == "at");
  const auto bad = problems(found);
  CHECK_THAT(bad.at("beep"), Contains("no speech: [a beep]"));
  CHECK_THAT(bad.at("silence/1"), Contains("no speech"));
  CHECK_THAT(bad.at("lost"), Contains("no such file"));
  CHECK(bad.size() == 4);
}

TEST_CASE("FSDD: names give digit, speaker and take") {
  TempFolder folder;
  for (const char* name :
       {"7_theo_0.wav", "0_lucas_12.wav", "x_theo_0.wav", "7_theo_x.wav", "77_theo_1.wav"}) {
    folder.write_tone(std::string("recordings/") + name);
  }
  const Prepared found = checked(prepare_fsdd(folder.path()));
  CHECK(ids(found.utterances) == Strings{"0_lucas_12", "7_theo_0"});
  CHECK(found.utterances[1].text == "seven");
  CHECK(found.utterances[1].speaker == "theo");
  CHECK(found.problems.size() == 3);
  CHECK_THROWS_AS(prepare_fsdd(folder / "recordings/nothing"), centroid::Error);
}

TEST_CASE("Connected digits: sets share no take, lengths and words fit, seeds decide") {
  TempFolder folder;
  fs::create_directories(folder / "recordings");
  for (const char* speaker : {"a", "b"}) {
    for (int take = 0; take < 12; ++take) {
      for (int digit = 0; digit < 2; ++digit) {
        // The amplitude tells the take apart in the sequences.
        Sound sound{std::vector<float>(800, static_cast<float>(take + 1) / 64), 8000};
        write_wav(folder / ("recordings/" + std::to_string(digit) + "_" + speaker + "_" +
                            std::to_string(take) + ".wav"),
                  sound);
      }
    }
  }
  DigitsOptions o;
  o.min_seconds = 0.5;
  o.max_seconds = 1.0;
  o.max_gap = 0.05;
  o.train = 4;
  o.dev = 3;
  o.test = 5;
  std::vector<Problem> bad;
  const Splits splits = prepare_connected_digits(folder / "recordings", folder / "out", o, bad);
  CHECK(bad.empty());
  CHECK(splits.train.size() == 4);
  CHECK(splits.dev.size() == 3);
  REQUIRE(splits.test.size() == 5);
  const auto takes_of = [](const std::vector<Utterance>& set) {
    std::set<int> takes;
    for (const Utterance& u : set) {
      for (const float x : load_sound(u.audio).samples)
        takes.insert(static_cast<int>(std::lround(x * 64)) - 1);
    }
    takes.erase(-1);
    return takes;
  };
  for (const int take : takes_of(splits.test)) CHECK(take < 5);
  for (const int take : takes_of(splits.dev)) CHECK((take >= 5 && take < 10));
  for (const int take : takes_of(splits.train)) CHECK(take >= 10);
  for (const Utterance& u : splits.test) {
    const double words = static_cast<double>(split_words(u.text).size());
    CHECK(u.duration == Approx(load_sound(u.audio).seconds()));
    CHECK(u.duration >= 0.5);
    CHECK(u.duration <= 1.16);
    CHECK(u.duration >= words * 0.1 - 1e-9);
    CHECK(u.duration <= words * 0.15);
  }
  const Splits again = prepare_connected_digits(folder / "recordings", folder / "again", o, bad);
  CHECK(slurp(again.test[3].audio) == slurp(splits.test[3].audio));
  o.seed = 2;
  const Splits other = prepare_connected_digits(folder / "recordings", folder / "other", o, bad);
  CHECK(slurp(other.test[3].audio) != slurp(splits.test[3].audio));

  o.leave_out = "b";
  const Splits left = prepare_connected_digits(folder / "recordings", folder / "left", o, bad);
  for (const Utterance& u : left.test) CHECK(u.speaker == "b");
  for (const Utterance& u : left.train) CHECK(u.speaker == "a");
  o.leave_out = "c";
  CHECK_THAT(
      message_of([&] { prepare_connected_digits(folder / "recordings", folder / "x", o, bad); }),
      Contains("speaker c does not occur"));

  folder.write("recordings/3_a_1.wav", "no sound");
  o.leave_out = "";
  const Splits none = prepare_connected_digits(folder / "recordings", folder / "none", o, bad);
  CHECK(none.train.empty());
  CHECK(bad.size() == 1);
  CHECK_FALSE(fs::exists(folder / "none"));
}

TEST_CASE("JSON lines: bad lines become problems and the others are kept") {
  TempFolder folder;
  folder.write_tone("a.wav");
  const std::string path = folder.write("m.jsonl", R"({"id": "a", "audio": "a.wav", "text": "x"}
{"id": "b", "audio"
{"id": "a", "audio": "a.wav", "text": "y"}
{"id": "c", "audio": "a.wav", "text": "z", "offset": 0.05, "duration": 0.2}
{"id": "d", "audio": "a.wav", "text": "  "}
{"id": "e", "audio": "a.wav", "text": "z", "offset": 0.05}
)");
  for (const bool decode : {true, false}) {
    Prepared found = prepare_jsonl(path);
    check_utterances(found, {.unit = Unit::words, .decode = decode});
    CHECK(ids(found.utterances) == Strings{"a", "e"});
    CHECK(found.utterances[1].duration == Approx(0.05));
    const auto bad = problems(found);
    CHECK(bad.size() == 4);
    CHECK_THAT(bad.at(path + ":2"), Contains("JSON"));
    CHECK_THAT(bad.at(path + ":3"), Contains("a appears twice"));
    CHECK_THAT(bad.at("c"), Contains("segment"));
    CHECK_THAT(bad.at("d"), Contains("text is empty"));
  }
}

TEST_CASE("Kaldi folders: segments, speakers, pipes and missing lines") {
  TempFolder folder;
  folder.write_tone("rec.wav", 1.0);
  folder.write("k/wav.scp",
               "r1 " + folder / "rec.wav" + "\nr2 sox x.wav -t wav - |\nr3 ../rec.wav\n");
  folder.write("k/text",
               "u1 hello  world\nu2 piped\nu3 relative\nu4 no segment\nu5 backwards\nu7\n");
  folder.write("k/segments",
               "u1 r1 0.25 0.75\nu2 r2 0 1\nu3 r3 0.5 1.0\nu5 r1 0.7 0.2\nu6 r1 0 1\nu7 r1 0 1\n");
  folder.write("k/utt2spk", "u1 mary\n");
  const Prepared found = checked(prepare_kaldi(folder / "k"));
  CHECK(ids(found.utterances) == Strings{"u1", "u3"});
  CHECK(found.utterances[0].text == "hello world");
  CHECK(found.utterances[0].offset == 0.25);
  CHECK(found.utterances[0].duration == Approx(0.5));
  CHECK(found.utterances[0].speaker == "mary");
  const auto bad = problems(found);
  CHECK(bad.size() == 5);
  CHECK_THAT(bad.at("u2"), Contains("commands are not run"));
  CHECK_THAT(bad.at("u4"), Contains("no line in segments"));
  CHECK_THAT(bad.at("u5"), Contains("0 <= start < end"));
  CHECK_THAT(bad.at("u6"), Contains("no line in text"));
  CHECK_THAT(bad.at("u7"), Contains("text is empty"));

  fs::remove(folder / "k/segments");
  folder.write("k/text", "r1 one\nr1 again\nr4 four\n");
  const Prepared whole = checked(prepare_kaldi(folder / "k"));
  CHECK(ids(whole.utterances) == Strings{"r1"});
  CHECK(whole.utterances[0].duration == 1.0);
  CHECK_THAT(problems(whole).at("r1"), Contains("text:2: appears twice"));
  CHECK_THAT(problems(whole).at("r4"), Contains("no line in wav.scp"));
  CHECK_THAT(message_of([&] { prepare_kaldi(folder / "none"); }), Contains("kaldi"));
}

TEST_CASE("LibriSpeech trees: speakers, other formats, sounds without a line") {
  TempFolder folder;
  folder.write("dev/84/121/84-121.trans.txt", "84-121-0000 GO ON\n84-121-0001 STOP\n");
  folder.write_tone("dev/84/121/84-121-0000.wav");
  folder.write("dev/84/121/84-121-0009.flac", "not looked into");
  const Prepared found = checked(prepare_librispeech(folder.path()));
  CHECK(ids(found.utterances) == Strings{"84-121-0000"});
  CHECK(found.utterances[0].text == "GO ON");
  CHECK(found.utterances[0].speaker == "84");
  CHECK_THAT(problems(found).at("84-121-0001"), Contains("0001.flac: no such file"));
  CHECK_THAT(problems(found).at("84-121-0009"), Contains("no line"));
  CHECK_THAT(message_of([&] { prepare_librispeech(folder / "dev/84/121/x"); }),
             Contains("does not exist"));
  CHECK_THAT(message_of([&] { prepare_librispeech("/proc/self/fdinfo"); }), Contains("found none"));
}

TEST_CASE("Tables: TSV, CSV with quotes, Common Voice and LJSpeech columns") {
  TempFolder folder;
  folder.write_tone("s/a.wav");
  folder.write_tone("s/sub/b.wav");
  folder.write_tone("s/clips/c.wav");
  const auto read = [&](const std::string& text) {
    return prepare_table(folder / "s", folder.write("t", text));
  };

  Prepared found = checked(read("a.wav\tsay \"a\", please\nsub/b.wav\tb\n\nlost.wav\tx\nshort\n"));
  CHECK(ids(found.utterances) == Strings{"a", "sub/b"});
  CHECK(found.utterances[0].text == "say \"a\", please");
  CHECK_THAT(problems(found).at("lost"), Contains("lost.wav: no such file"));
  CHECK_THAT(problems(found).at(folder / "t" + ":5"), Contains("2 columns, got 1"));

  found = checked(read("client_id\tpath\tsentence\nmary\tc.wav\tsea\n"));
  REQUIRE(found.utterances.size() == 1);
  CHECK(found.utterances[0].audio == folder / "s/clips/c.wav");
  CHECK(found.utterances[0].text == "sea");
  CHECK(found.utterances[0].speaker == "mary");

  found = checked(read("text,File\n\"one, \"\"two\"\"\nthree\",a.wav\n"));
  REQUIRE(found.utterances.size() == 1);
  CHECK(found.utterances[0].text == "one, \"two\" three");

  found = checked(read("a|Printing, in the|printing\n"));
  REQUIRE(found.utterances.size() == 1);
  CHECK(found.utterances[0].id == "a");
  CHECK(found.utterances[0].text == "Printing, in the");

  CHECK_THAT(message_of([&] { read("a,\"never ends\n"); }),
             Contains("t:1: a quoted field does not end"));
  CHECK_THAT(message_of([&] { read("just words\n"); }), Contains("separated by"));
  CHECK_THAT(message_of([&] { read(""); }), Contains("empty file"));
}

TEST_CASE("Checking normalises text and finds sounds that cannot be decoded") {
  TempFolder folder;
  Prepared prepared;
  Utterance u;
  u.id = "a";
  u.audio = folder.write_tone("a.wav");
  u.text = "  Hello,   WORLD! ";
  prepared.utterances.push_back(u);
  u.id = "b";
  u.audio = folder.write_tone("b.wav");
  fs::resize_file(u.audio, 100);
  prepared.utterances.push_back(u);
  u = prepared.utterances[0];
  prepared.utterances.push_back(u);
  check_utterances(prepared, {.unit = Unit::words, .lowercase = true, .strip_punctuation = true});
  REQUIRE(prepared.utterances.size() == 1);
  CHECK(prepared.utterances[0].text == "hello world");
  CHECK_THAT(problems(prepared).at("b"), Contains("truncated"));
  CHECK_THAT(problems(prepared).at("a"), Contains("twice"));
}

TEST_CASE("Every 10th: 62 of 620 for test and dev, and a bad file shifts nothing") {
  Prepared all = numbered(620);
  std::reverse(all.utterances.begin(), all.utterances.end());
  const Splits splits = split_every_10th(all);
  CHECK(splits.test.size() == 62);
  CHECK(splits.dev.size() == 62);
  CHECK(splits.train.size() == 496);
  CHECK(splits.test.back().id == "u10010");
  CHECK(splits.dev.back().id == "u10005");
  all.problems.push_back({all.utterances.back().id, "bad"});
  all.utterances.pop_back();
  CHECK(ids(split_every_10th(all).test) == ids(splits.test));
  CHECK(ids(split_every_10th(all).dev) == ids(splits.dev));
}

TEST_CASE("The lists of festvox-ru in the repository are the rule's") {
  const std::string stem =
      (centroid::test::repository_root() / "apps/audio/splits/festvox-ru.").string();
  const Strings train = read_lines(stem + "train.txt"), dev = read_lines(stem + "dev.txt"),
                test = read_lines(stem + "test.txt");
  Prepared all;
  for (const Strings* list : {&train, &dev, &test}) {
    for (const std::string& id : *list) {
      all.utterances.emplace_back();
      all.utterances.back().id = id;
    }
  }
  const Splits splits = split_every_10th(all);
  CHECK(ids(splits.train) == train);
  CHECK(ids(splits.dev) == dev);
  CHECK(ids(splits.test) == test);
  CHECK(train.size() == 496);
}

TEST_CASE("Hash split: about the fractions, and stable when others come and go") {
  const Prepared all = numbered(5000);
  const Splits splits = split_by_hash(all, 0.1, 0.2);
  CHECK(std::abs(static_cast<int>(splits.dev.size()) - 500) < 80);
  CHECK(std::abs(static_cast<int>(splits.test.size()) - 1000) < 110);
  CHECK(splits.train.size() + splits.dev.size() + splits.test.size() == 5000);
  const Strings fewer = ids(split_by_hash(numbered(1000), 0.1, 0.2).test);
  Strings first = ids(splits.test);
  first.resize(fewer.size());
  CHECK(fewer == first);
  CHECK(split_by_hash(all, 0, 0).train.size() == 5000);
  CHECK_THROWS_AS(split_by_hash(all, 0.5, 0.5), centroid::Error);
  CHECK_THROWS_AS(split_by_hash(all, NAN, 0.5), centroid::Error);
}

TEST_CASE("Splits by speaker and by lists of ids") {
  const Prepared all = numbered(6);
  const Splits speakers = split_by_speaker(all, {}, {"even"});
  CHECK(speakers.test.size() == 3);
  CHECK(speakers.train.size() == 3);
  CHECK_THAT(message_of([&] { split_by_speaker(all, {}, {"none"}); }),
             Contains("speaker none") && Contains("even, odd"));
  CHECK_THAT(message_of([&] { split_by_speaker(all, {"odd"}, {"odd"}); }),
             Contains("for dev and for test"));

  TempFolder folder;
  const std::string dev = folder.write("dev", "u10002\n"),
                    test = folder.write("test", "u10006\nu10003\n\n");
  std::vector<Problem> bad;
  const Splits lists = split_by_lists(all, "", dev, test, bad);
  CHECK(bad.empty());
  CHECK(ids(lists.dev) == Strings{"u10002"});
  CHECK(ids(lists.test) == Strings{"u10003", "u10006"});
  CHECK(lists.train.size() == 3);
  const std::string train = folder.write("train", "u10001\nu99999\n");
  split_by_lists(all, train, dev, test, bad);
  REQUIRE(bad.size() == 3);
  CHECK(bad[0].id == "u10004");
  CHECK(bad[2].id == "u99999");
  CHECK_THAT(message_of([&] { split_by_lists(all, train, train, "", bad); }),
             Contains("listed twice"));
}
