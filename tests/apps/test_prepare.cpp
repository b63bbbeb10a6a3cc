// The readers of corpora, on small imitations of each, with every kind of fault.
#include "apps/audio/prepare.h"

#include <set>

#include "apps/audio/base64.h"
#include "apps/audio/files.h"
#include "tests/apps/prepare_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

TEST_CASE("Festvox: text without stress marks, phones without pauses, faults by id", "[prepare]") {
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
  Prepared found = checked(collect(read_festvox, folder.path(), false), Unit::phones);
  REQUIRE(found.utterances.size() == 1);
  const Utterance& u = found.utterances[0];
  CHECK(u.id == "ru_1");
  CHECK(u.text == "Глаза, \"да\"");
  CHECK(u.phones == Strings{"g", "ll"});
  CHECK(u.duration == Approx(0.1));
  auto bad = problems(found);
  CHECK(bad.size() == 5);
  CHECK_THAT(bad.at("ru_2"), Contains("ru_2.lab:3: the labels go back in time"));
  CHECK_THAT(bad.at("ru_3"), Contains("line #"));
  CHECK_THAT(bad.at("ru_4"), Contains("ru_4.wav: no such file"));
  CHECK_THAT(bad.at("ru_6"), Contains("no phones"));
  CHECK_THAT(problems(found).begin()->second, Contains("expected ( ID \"text\" ), got nonsense"));
  CHECK(collect(read_festvox, folder / "usr/share/voice", true).utterances[0].phones ==
        Strings{"pau", "g", "ll", "pau"});
  // Labels of another sound, a sound without a prompt, a line that is no text.
  folder.write(voice + "lab/ru_6.lab", "#\n0.05 125 a\n0.5 125 b\n");
  folder.write_tone(voice + "wav/ru_7.wav");
  folder.write(voice + "etc/txt.done.data", "( ru_1 \"a\" )\n( ru_2 \"\xff\" )\n( ru_6 \"b\" )\n");
  found = collect(read_festvox, folder.path(), false);
  CHECK(ids(found.utterances) == Strings{"ru_1"});
  bad = problems(found);
  CHECK(bad.size() == 5);
  CHECK_THAT(bad.at("ru_6"), Contains("the labels end at 0.5 s, the sound at 0.1 s"));
  CHECK_THAT(bad.at("ru_7"), Contains("ru_7.wav has no line in"));
  CHECK_THAT(bad.at(folder / (voice + "etc/txt.done.data:2")), StartsWith("expected UTF-8"));
  CHECK_THAT(message_of([&] { collect(read_festvox, folder / "usr/share/voice/wav", false); }),
             Contains("found none"));
  CHECK_THAT(message_of([&] { collect(read_festvox, folder / "nowhere", false); }),
             Contains("does not exist"));
}

TEST_CASE("Asterisk: remarks are no speech, single figures become words", "[prepare]") {
  TempFolder folder;
  const std::string text = folder.write(
      "t.txt",
      "; comment\n\ndigits/1: one\nmenu: Please press 1 or 2 for 3D, dial 4242 at 28.8 or "
      "1.5.\nbeep: [a beep]\n"
      "silence/1: (1 second of silence)\nletters/at: at [@]\nno colon\nlost: Lost.\nx: \xff\n");
  folder.write_tone("s/digits/2.wav");
  for (const char* key : {"digits/1", "menu", "beep", "silence/1", "letters/at"})
    folder.write_tone(std::string("s/") + key + ".wav");
  const Prepared found = checked(collect(read_asterisk, folder / "s", text));
  CHECK(ids(found.utterances) == Strings{"digits/1", "menu", "letters/at"});
  CHECK(found.utterances[1].text ==
        "Please press one or two for three D, dial 4242 at 28.8 or 1.5.");
  CHECK(found.utterances[2].text == "at");
  const auto bad = problems(found);
  CHECK_THAT(bad.at("beep"), Contains("no speech: [a beep]"));
  CHECK_THAT(bad.at("silence/1"), Contains("no speech"));
  CHECK_THAT(bad.at("lost"), Contains("no such file"));
  CHECK_THAT(bad.at("digits/2"), Contains("digits/2.wav has no line in " + text));
  CHECK_THAT(bad.at(text + ":10"), StartsWith("expected UTF-8"));
  CHECK(bad.size() == 6);
}

TEST_CASE("FSDD: names give digit, speaker and take", "[prepare]") {
  TempFolder folder;
  for (const char* name : {"7_theo_0.wav", "0_lucas_12.wav", "x_theo_0.wav", "7_theo_x.wav",
                           "77_theo_1.wav", "7_theo_1.WAV", "7_theo_2.flac"}) {
    folder.write_tone(std::string("recordings/") + name);
  }
  const Prepared found = checked(collect(read_fsdd, folder.path()));
  CHECK(ids(found.utterances) == Strings{"0_lucas_12", "7_theo_0"});
  CHECK(found.utterances[1].text == "seven");
  CHECK(found.utterances[1].speaker == "theo");
  CHECK(found.problems.size() == 5);
  CHECK_THROWS_AS(collect(read_fsdd, folder / "recordings/nothing"), centroid::Error);
}

TEST_CASE("Connected digits: sets share no take, lengths and words fit, seeds decide",
          "[prepare]") {
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
  const Splits splits = make_connected_digits(folder / "recordings", folder / "out", o, bad);
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
  const Splits again = make_connected_digits(folder / "recordings", folder / "again", o, bad);
  CHECK(slurp(again.test[3].audio) == slurp(splits.test[3].audio));
  o.seed = 2;
  const Splits other = make_connected_digits(folder / "recordings", folder / "other", o, bad);
  CHECK(slurp(other.test[3].audio) != slurp(splits.test[3].audio));

  o.leave_out = "b";
  const Splits left = make_connected_digits(folder / "recordings", folder / "left", o, bad);
  for (const Utterance& u : left.test) CHECK(u.speaker == "b");
  for (const Utterance& u : left.train) CHECK(u.speaker == "a");
  o.leave_out = "c";
  CHECK_THAT(
      message_of([&] { make_connected_digits(folder / "recordings", folder / "x", o, bad); }),
      Contains("speaker c does not occur"));

  folder.write("recordings/3_a_1.wav", "no sound");
  o.leave_out = "";
  const Splits none = make_connected_digits(folder / "recordings", folder / "none", o, bad);
  CHECK(none.train.empty());
  CHECK(bad.size() == 1);
  CHECK_FALSE(fs::exists(folder / "none"));
}

TEST_CASE("JSON lines: bad lines become problems and the others are kept", "[prepare]") {
  TempFolder folder;
  folder.write_tone("a.wav");
  const std::string path = folder.write("m.jsonl", R"({"id": "a", "audio": "a.wav", "text": "x"}
{"id": "b", "audio"
{"id": "c", "audio": "a.wav", "text": "z", "offset": 0.05, "duration": 0.2}
{"id": "d", "audio": "a.wav", "text": "  "}

{"id": "e", "audio": "a.wav", "text": "z", "offset": 0.05}
[1]
)"
                                                   "{\"id\": \"\xff\"}\n");
  for (const SoundCheck sound : {SoundCheck::full, SoundCheck::headers}) {
    const Prepared found = checked(collect(read_json_lines, path, ""), Unit::words, sound);
    CHECK(ids(found.utterances) == Strings{"a", "e"});
    CHECK(found.utterances[1].duration == Approx(0.05));
    const auto bad = problems(found);
    CHECK(bad.size() == 5);
    CHECK_THAT(bad.at(path + ":2"), StartsWith("not a line of JSON"));
    CHECK_THAT(bad.at("c"), Contains("segment"));
    CHECK_THAT(bad.at("d"), Contains("text is empty"));
    CHECK_THAT(bad.at(path + ":7"), Contains("JSON object"));
    CHECK_THAT(bad.at(path + ":8"), StartsWith("expected UTF-8"));
  }
}

TEST_CASE("A compressed list that is cut short is a problem where it ends", "[prepare]") {
#ifdef CENTROID_HAVE_ZLIB
  TempFolder folder;
  // printf '{"id": "a", "audio": "a.wav"}\n' | gzip -n
  const std::string gz =
      from_base64("H4sIAAAAAAAAA6tWykxRslJQSlTSARKlKZn5YJ5eeWKZUi0XAGURk/IeAAAA");
  const std::string path = folder.write("m.jsonl.gz", gz.substr(0, 30));
  const Prepared found = collect(read_json_lines, path, "");
  REQUIRE(found.problems.size() == 1);
  CHECK_THAT(found.problems[0].what, Contains("truncated or corrupt gzip"));
#endif
}

TEST_CASE("JSON lines: lists in lists without end are problems of their lines", "[prepare]") {
  TempFolder folder;
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  const std::string path =
      folder.write("m.jsonl", "{\"id\":" + deep + ",\"audio\":\"a.wav\"}\n" +
                                  "{\"id\":\"c\",\"supervisions\":[{}],\"recording\":" + deep +
                                  "}\n" + "{\"id\":\"a\",\"audio\":\"a.wav\"}\n");
  const Prepared found = collect(read_json_lines, path, "");
  CHECK(ids(found.utterances) == Strings{"a"});
  const auto bad = problems(found);
  CHECK(bad.size() == 2);
  for (const auto& [place, what] : bad) CHECK_THAT(what, Contains("inside each other"));
}

TEST_CASE("JSON lines of NeMo and WeNet", "[prepare]") {
  TempFolder folder;
  const std::string path = folder.write(
      "m.jsonl",
      R"({"audio_filepath": "x/a.wav", "duration": 2.5, "text": "hi", "offset": 1, "lang": "en"}
{"key": "k1", "wav": "/data/k1.wav", "txt": "one two", "speaker": "s"}
{"key": "k2", "wav": "k2.wav", "txt": "three", "start": 1.5, "end": 2.25}
{"key": "k3", "wav": "cat k3.wav |", "txt": "three"}
{"key": "k4", "wav": "k4.wav", "txt": "x", "start": 2, "end": 1}
{"wav": "k5.wav", "txt": "x"}
)");
  const Prepared found = collect(read_json_lines, path, "");
  REQUIRE(ids(found.utterances) == Strings{"x/a@1", "k1", "k2"});
  CHECK(found.utterances[0].audio == folder / "x/a.wav");
  CHECK(found.utterances[0].offset == 1);
  CHECK(found.utterances[0].duration == 2.5);
  CHECK(found.utterances[1].audio == "/data/k1.wav");
  CHECK(found.utterances[1].text == "one two");
  CHECK(found.utterances[1].speaker == "s");
  CHECK(found.utterances[2].audio == folder / "k2.wav");
  CHECK(found.utterances[2].offset == 1.5);
  CHECK(found.utterances[2].duration == 0.75);
  const auto bad = problems(found);
  CHECK_THAT(bad.at(path + ":4"), Contains("commands are not run"));
  CHECK_THAT(bad.at(path + ":5"), Contains("start < end, got 2 and 1"));
  CHECK_THAT(bad.at(path + ":6"), Contains("key: missing"));
}

TEST_CASE("JSON lines of lhotse: cuts", "[prepare]") {
  TempFolder folder;
  folder.write("rec.wav", "not looked at");
  const std::string recording =
      R"("recording": {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "rec.wav"}]})";
  const auto with = [&](const std::string& id, const std::string& rest) {
    return R"({"id": ")" + id + R"(", "start": 10, "duration": 4, "channel": 0, )" + rest + "}\n";
  };
  const std::string one = R"("supervisions": [{"id": "s1", "start": 0, "duration": 4, )"
                          R"("text": "go on", "speaker": "mary", "channel": 0}], )";
  const std::string path = folder.write(
      "cuts.jsonl",
      with("c1", one + recording) +
          with("c2", R"("supervisions": [{"id": "s2", "start": 0.5, "duration": 1, "text": "a"}, )"
                     R"({"id": "s3", "start": 2, "duration": 1.5, "text": "b"}], )" +
                         recording) +
          with("c3", R"("supervisions": [], )" + recording) +
          with("c4", one + R"("features": {})") +
          with("c5",
               one + R"("recording": {"sources": [{"type": "command", "source": "cat x"}]})") +
          with("c6", one + R"("recording": {"sources": [{"type": "file", "channels": [0, 1], )"
                           R"("source": "rec.wav"}]})") +
          with("c7", one +
                         R"("recording": {"sources": [{"type": "file", "channels": [1], "source": )"
                         R"("b.wav"}, {"type": "file", "channels": [0], "source": "/a.wav"}]})") +
          with("c8", one + R"("recording": {"transforms": [{"name": "Speed"}], "sources": [{}]})") +
          with("c9", R"("tracks": [])") + R"({"id": "r", "sources": [], "duration": 3})" + "\n");
  const Prepared found = collect(read_json_lines, path, "");
  REQUIRE(ids(found.utterances) == Strings{"c1", "s2", "s3", "c7"});
  CHECK(found.utterances[0].audio == folder / "rec.wav");
  CHECK(found.utterances[0].offset == 10);
  CHECK(found.utterances[0].duration == 4);
  CHECK(found.utterances[0].text == "go on");
  CHECK(found.utterances[0].speaker == "mary");
  CHECK(found.utterances[1].offset == 10.5);
  CHECK(found.utterances[2].offset == 12);
  CHECK(found.utterances[2].duration == 1.5);
  CHECK(found.utterances[3].audio == "/a.wav");
  const auto bad = problems(found);
  CHECK(bad.size() == 7);
  CHECK_THAT(bad.at("c3"), Contains("without supervision") && Contains("cuts.jsonl:3"));
  CHECK_THAT(bad.at("c4"), Contains("no recording"));
  CHECK_THAT(bad.at("c5"), Contains("commands are not run"));
  CHECK_THAT(bad.at("c6"), Contains("several channels"));
  CHECK_THAT(bad.at("c8"), Contains("transforms"));
  CHECK_THAT(bad.at("c9"), Contains("mixed cut"));
  CHECK(found.problems.back().id == path + ":10");
}

TEST_CASE("JSON lines of lhotse: supervisions and their recordings", "[prepare]") {
  TempFolder folder;
  const std::string recordings =
      R"({"id": "r1", "sources": [{"type": "file", "channels": [0], "source": "/x/r1.flac"}]})"
      "\n"
      R"({"id": "r2", "sources": [{"type": "url", "channels": [0], "source": "http://x"}]})"
      "\n";
  const std::string path = folder.write(
      "libri_supervisions_dev.jsonl",
      R"({"id": "a", "recording_id": "r1", "start": 0.5, "duration": 2, "channel": 0, "text": "A"}
{"id": "b", "recording_id": "r2", "start": 0, "duration": 2, "channel": 0, "text": "B"}
{"id": "c", "recording_id": "r3", "start": 0, "duration": 2, "channel": 0, "text": "C"}
)");
  Prepared found = collect(read_json_lines, path, "");
  CHECK(found.utterances.empty());
  CHECK_THAT(found.problems[0].what, Contains("libri_recordings_dev.jsonl: no such file"));
  folder.write("libri_recordings_dev.jsonl", recordings);
  const std::string other = folder.write("other", recordings + recordings);
  for (const std::string& file : {std::string(), other}) {
    found = collect(read_json_lines, path, file);
    REQUIRE(ids(found.utterances) == Strings{"a"});
    CHECK(found.utterances[0].audio == "/x/r1.flac");
    CHECK(found.utterances[0].offset == 0.5);
    CHECK(found.utterances[0].text == "A");
    const auto bad = problems(found);
    CHECK_THAT(bad.at(path + ":2"), Contains("type file, got url"));
    CHECK_THAT(bad.at(path + ":3"), Contains("recording r3 is not in"));
  }
  CHECK_THAT(problems(found).at("r1"), Contains("appears twice"));
}

TEST_CASE("Kaldi folders: segments, speakers, pipes and missing lines", "[prepare]") {
  TempFolder folder;
  folder.write_tone("rec.wav", 1.0);
  folder.write("k/wav.scp",
               "r1 " + folder / "rec.wav" + "\nr2 sox x.wav -t wav - |\nr3 ../rec.wav\n");
  folder.write("k/text",
               "u1 hello  world\nu2 piped\nu3 relative\nu4 no segment\nu5 backwards\nu7\n");
  folder.write("k/segments",
               "u1 r1 0.25 0.75\nu2 r2 0 1\nu3 r3 0.5 1.0\nu5 r1 0.7 0.2\nu6 r1 0 1\nu7 r1 0 1\n");
  folder.write("k/utt2spk", "u1 mary\nu3 tom\nu7 tom\n");
  const Prepared found = checked(collect(read_kaldi, folder / "k"));
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

  fs::remove(folder / "k/utt2spk");
  fs::remove(folder / "k/segments");
  folder.write("k/text", "r1 one\nr1 again\nr4 four\n");
  const Prepared whole = checked(collect(read_kaldi, folder / "k"));
  CHECK(ids(whole.utterances) == Strings{"r1"});
  CHECK(whole.utterances[0].duration == 1.0);
  CHECK_THAT(problems(whole).at("r1"), Contains("k/text: r1 appears twice"));
  CHECK_THAT(problems(whole).at("r4"), Contains("no line in wav.scp"));
  CHECK_THAT(message_of([&] { collect(read_kaldi, folder / "none"); }), Contains("kaldi"));
}

TEST_CASE("Kaldi folders: unused recordings, faults of utt2spk and bad lines", "[prepare]") {
  TempFolder folder;
  folder.write("k/wav.scp", "r1 /rec.wav\nr2 /rec.wav\n");
  folder.write("k/text", "u1 one\nu2 two\nu3 three\nu4 four\nu5 \xff\n");
  folder.write("k/segments", "u1 r1 0 1\nu2 r1 1 2\nu3 r1 2 3\nu4 r1 3 4\n");
  folder.write("k/utt2spk", "u1 mary\nu2\nu3 mary ann\nu9 mary\n");
  const Prepared found = collect(read_kaldi, folder / "k");
  CHECK(ids(found.utterances) == Strings{"u1"});
  const auto bad = problems(found);
  CHECK(bad.size() == 6);
  CHECK_THAT(bad.at("r2"), Contains("no segment is of this recording"));
  CHECK_THAT(bad.at("u2"), Contains("expected UTTERANCE SPEAKER, got ''"));
  CHECK_THAT(bad.at("u3"), Contains("got 'mary ann'"));
  CHECK_THAT(bad.at("u4"), Contains("no line in utt2spk"));
  CHECK_THAT(bad.at("u9"), Contains("there is no such utterance"));
  CHECK_THAT(bad.at(folder / "k/text:5"), StartsWith("expected UTF-8"));  // the place only once
}

TEST_CASE("Kaldi folders: what the segments may say, archives, other files", "[prepare]") {
  TempFolder folder;
  folder.write_tone("k/rec.wav", 1.0);
  folder.write("k/wav.scp", "r1 rec.wav\nr2 raw.ark:123\nr3\n");
  folder.write("k/text", "u1 to the end\nu2 archive\nu3 channel\nu4 nothing\nu5 number\n");
  folder.write("k/segments", "u5 r1 0 x\nu1 r1 0.25 -1\nu2 r2 0 1\nu3 r1 0 1 2\nu4 r3 0 1\n");
  folder.write("k/spk2gender", "mary f\n");
  folder.write("k/utt2dur", "this is not looked at");
  const Prepared found = checked(collect(read_kaldi, folder / "k"));
  REQUIRE(ids(found.utterances) == Strings{"u1"});
  CHECK(found.utterances[0].duration == Approx(0.75));
  const auto bad = problems(found);
  CHECK(bad.size() == 4);
  CHECK_THAT(bad.at("u2"), Contains("archives are not read"));
  CHECK_THAT(bad.at("u3"), Contains("one channel of several"));
  CHECK_THAT(bad.at("u4"), Contains("names no file"));
  CHECK_THAT(bad.at("u5"), Contains("RECORDING START END"));
}

TEST_CASE("LibriSpeech trees: speakers, other formats, sounds without a line", "[prepare]") {
  TempFolder folder;
  folder.write("dev/84/121/84-121.trans.txt", "84-121-0000 GO ON\n84-121-0001 STOP\n");
  folder.write_tone("dev/84/121/84-121-0000.wav");
  folder.write("dev/84/121/84-121-0009.flac", "not looked into");
  const Prepared found = checked(collect(read_librispeech, folder.path()));
  CHECK(ids(found.utterances) == Strings{"84-121-0000"});
  CHECK(found.utterances[0].text == "GO ON");
  CHECK(found.utterances[0].speaker == "84");
  CHECK_THAT(problems(found).at("84-121-0001"), Contains("0001.flac: no such file"));
  CHECK_THAT(problems(found).at("84-121-0009"), Contains("no line"));
  folder.write("dev/84/121/84-121-0010.wav", "not looked into");
  CHECK_THAT(problems(collect(read_librispeech, folder.path())).at("84-121-0010"),
             Contains("no line"));
  CHECK_THAT(message_of([&] { collect(read_librispeech, folder / "dev/84/121/x"); }),
             Contains("does not exist"));
  CHECK_THAT(message_of([&] { collect(read_librispeech, "/proc/self/fdinfo"); }),
             Contains("found none"));
}
