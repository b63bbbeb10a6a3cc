// CTM and label files, subtitles.
#include "apps/audio/ctm.h"

#include <cmath>

#include "apps/audio/subtitles.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;

TEST_CASE("CTM is read", "[ctm]") {
  const auto entries = parse_ctm(
      ";; a comment\r\nrec_1 A 0.25 1.5 hello 0.875\n\n\trec_1\tA 1.75 0 слово\r\nr B 1e1 2 x NA",
      "x");
  REQUIRE(entries.size() == 3);
  CHECK(entries[0].recording == "rec_1");
  CHECK(entries[0].channel == "A");
  CHECK(entries[0].begin == 0.25);
  CHECK(entries[0].duration == 1.5);
  CHECK(entries[0].word == "hello");
  CHECK(entries[0].confidence == 0.875);
  CHECK(entries[1].word == "слово");
  CHECK(std::isnan(entries[1].confidence));
  CHECK(entries[2].begin == 10);
  CHECK(std::isnan(entries[2].confidence));
  CHECK(parse_ctm("", "x").empty());
}

TEST_CASE("CTM with faults names file and line", "[ctm]") {
  const auto error = [](const std::string& line) {
    return message_of([&] { parse_ctm("r 1 0 1 a\n" + line, "f.ctm"); });
  };
  CHECK_THAT(error("r 1 0 1"), Contains("f.ctm:2: ") && Contains("got 4 fields"));
  CHECK_THAT(error("r 1 0 1 a 0.5 lex"), Contains("got 7 fields"));
  CHECK_THAT(error("r 1 O 1 a"), Contains("begin: expected a number, got O"));
  CHECK_THAT(error("r 1 0 -1 a"), Contains("duration: expected seconds of at least 0, got -1"));
  CHECK_THAT(error("r 1 0 1 a high"), Contains("confidence: expected a number"));
  CHECK_THAT(error("r 1 * * <ALT_BEGIN>"),
             Contains("alternatives (<ALT_BEGIN>) are not supported"));
  CHECK_THAT(error("r 1 0 1 \xff"), Contains("f.ctm:2: expected UTF-8"));
}

TEST_CASE("CTM written is read back exactly", "[ctm]") {
  std::vector<CtmEntry> entries = {{"r", "1", 0.1, 1.0 / 3, "a", 0.1234},
                                   {"r", "1", 12345.678, 1e-9, "b", NAN}};
  const std::string text = format_ctm(entries);
  CHECK_THAT(text, Contains("r 1 0.1 0.3333333333333333 a 0.1234\n"));
  const auto back = parse_ctm(text, "x");
  REQUIRE(back.size() == 2);
  CHECK(back[0].duration == entries[0].duration);
  CHECK(back[1].duration == entries[1].duration);
  CHECK(format_ctm(back) == text);
  CHECK(format_ctm(ctm_entries("r", {{"w", 0.30000001, 1.1, 0.123456}})) ==
        "r 1 0.3 0.8 w 0.1235\n");
  for (const char* bad : {"", "two words", ";;r"}) {
    CHECK_THROWS_WITH(format_ctm({{bad, "1", 0, 1, "w", NAN}}), Contains("recording"));
  }
  CHECK_THROWS_WITH(format_ctm({{"r", "1", -1, 1, "w", NAN}}), Contains("ctm: begin"));
  CHECK_THROWS_WITH(format_ctm({{"r", "1", 0, NAN, "w", NAN}}), Contains("ctm: duration"));
}

TEST_CASE("label files are read and written", "[ctm]") {
  const auto segments =
      parse_lab("signal x\nnfields 1\n#\n  0.342 125 pau\n0.5\t125 k ; stress\n", "x");
  REQUIRE(segments.size() == 2);
  CHECK(segments[0].begin == 0);
  CHECK(segments[1].begin == 0.342);
  CHECK(segments[1].end == 0.5);
  CHECK(segments[1].text == "k");
  const std::string text = format_lab({{"k", 0.25, 0.5}, {"a", 0.5, 0.75}, {"t", 1, 1.5}});
  CHECK(text == "#\n0.25 125 pau\n0.5 125 k\n0.75 125 a\n1 125 pau\n1.5 125 t\n");
  CHECK(format_lab(parse_lab(text, "x")) == text);
  const auto error = [](const std::string& bytes) {
    return message_of([&] { parse_lab(bytes, "f.lab"); });
  };
  CHECK_THAT(error("0.5 125 a\n"), Contains("f.lab: expected a header that ends with a line #"));
  CHECK_THAT(error("#\n0.5 125\n"), Contains("f.lab:2: expected END_SECONDS COLOUR PHONE"));
  CHECK_THAT(error("#\n0.5 125 a\n0.4 125 b\n"), Contains("f.lab:3: the labels go back in time"));
  CHECK_THROWS_WITH(format_lab({{"k", 0.5, 1}, {"a", 0.8, 2}}), Contains("lab: a: expected"));
  CHECK_THROWS_WITH(format_lab({{"k k", 0.5, 1}}), Contains("lab: label"));
}

TEST_CASE("subtitles break where they are full, long or silent", "[ctm]") {
  SubtitleOptions o;
  o.columns = 9;
  o.lines = 2;
  o.longest = 5;
  o.pause = 0.8;
  const std::vector<TimedWord> words = {{"one", 0, 0.5},       {"two", 0.5, 1},  {"three", 1, 1.5},
                                        {"four", 1.5, 2},      {"five", 2.9, 3}, {"six", 3, 8},
                                        {"длинноеслово", 8, 9}};
  const auto subtitles = make_subtitles(words, o);
  REQUIRE(subtitles.size() == 5);
  CHECK(subtitles[0].text == "one two\nthree");
  CHECK(subtitles[0].begin == 0);
  CHECK(subtitles[0].end == 1.5);
  CHECK(subtitles[1].text == "four");  // the third line
  CHECK(subtitles[2].text == "five");  // after 0.9 s
  CHECK(subtitles[3].text == "six");   // would last 5.1 s
  CHECK(subtitles[4].text == "длинноеслово");
  CHECK(make_subtitles({}, o).empty());
  o.columns = 0;
  CHECK_THROWS_WITH(make_subtitles(words, o), Contains("subtitles: expected"));
}

TEST_CASE("SRT and WebVTT", "[ctm]") {
  const std::vector<TimedWord> subtitles = {{"a\nb", 0.0004, 1.5}, {"c", 1.25, 3661.0015}};
  CHECK(format_srt(subtitles) ==
        "1\n00:00:00,000 --> 00:00:01,250\na\nb\n\n2\n00:00:01,250 --> 01:01:01,002\nc\n\n");
  CHECK(format_vtt(subtitles) ==
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\na\nb\n\n00:00:01.250 --> 01:01:01.002\nc\n\n");
  CHECK(format_srt({}).empty());
  CHECK_THROWS_WITH(format_srt({{"a", 2, 1}}), Contains("times in order"));
  CHECK_THROWS_WITH(format_srt({{"a", 2, 3}, {"b", 1, 2}}), Contains("times in order"));
}
