// Transcripts as files of other tools hold them, and what of them is counted.
#include "apps/audio/transcripts.h"

#include "apps/audio/files.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;
using Format = TranscriptFormat;

namespace {

/// `id=text|...` of a parsed file, its format first.
std::string shown(const std::string& bytes, std::optional<Format> format = {}) {
  const Transcripts t = parse_transcripts(bytes, "file", format);
  std::string out = name_of(t.format);
  for (const Transcript& item : t.items) out += "|" + item.id + "=" + item.text;
  return out;
}

std::string refused(const std::string& bytes, std::optional<Format> format = {}) {
  return message_of([&] { parse_transcripts(bytes, "file", format); });
}

}  // namespace

TEST_CASE("Transcripts are read from every format, found by the content", "[score]") {
  CHECK(shown("a  b (s-1)\n;; a comment\n\n(s-2)\nx (y) (s_3)\r\n") ==
        "trn|s-1=a b|s-2=|s_3=x (y)");
  CHECK(shown("u1 a b\nu2\n u3\tc (d)\n") == "kaldi|u1=a b|u2=|u3=c (d)");
  CHECK(shown("u1\ta  b\nu2\t\n") == "tsv|u1=a b|u2=");
  CHECK(shown("speaker\tid\tother\tText\nS\tu 1\tx\ta b\n") == "tsv|u 1=a b");
  CHECK(shown("{\"id\":\"u\",\"text\":\"a\\n b\"}\n{\"audio\":\"d/v.wav\",\"phones\":[\"p\"]}") ==
        "manifest|u=a b|d/v=");
  // A trn file may begin with an alternation, which is no JSON.
  CHECK(shown("{ a / b } c (s-1)\n") == "trn|s-1={ a / b } c");
  CHECK(shown("\xEF\xBB\xBFu1 a\n") == "kaldi|u1=a");
  CHECK(shown("u1 a (b)\n", Format::kaldi) == "kaldi|u1=a (b)");
  const Transcripts t = parse_transcripts(
      "{\"audio\":\"v.wav\",\"offset\":1.5,\"phones\":[\"p\",\"q\"],\"speaker\":\"S\"}", "file");
  CHECK(t.items[0] == Transcript{"v@1.5", "", {"p", "q"}, "S"});
  REQUIRE(t.find("v@1.5"));
  CHECK_FALSE(t.find("v"));
  CHECK(parse_transcripts("id\tspeaker\ttext\nu\tS\ta\n", "file").items[0].speaker == "S");
}

TEST_CASE("Transcripts that are unclear are refused with file and line", "[score]") {
  CHECK_THAT(refused(""), Contains("file: expected transcripts"));
  CHECK_THAT(refused(";; nothing (x)\n", Format::trn), Contains("file: expected transcripts"));
  CHECK_THAT(refused("a (s-1)\nb (s-2)\nc s-3)\n"), Contains("file:3: expected `words (id)`"));
  CHECK_THAT(refused("a (s-1)\nb\n", Format::trn), Contains("file:2: expected `words (id)`"));
  CHECK_THAT(refused("a (s-1)\nb (s-1)\n"), Contains("file:2: the id s-1 appears twice"));
  CHECK_THAT(refused("u a\n\nu b\n"), Contains("file:3: the id u appears twice"));
  CHECK_THAT(refused("u\ta\tb\n"), Contains("file:1: expected 2 columns"));
  CHECK_THAT(refused("\ta\n"), Contains("file:1: expected the id of an utterance"));
  CHECK_THAT(refused("id\ttext\nu\n"), Contains("file:2: expected at least 2 columns"));
  CHECK_THAT(refused("id\ttext\tid\nu\ta\tv\n"),
             Contains("file:1: expected a header with one column each"));
  CHECK_THAT(refused("{\"id\":\"u\"}"), Contains("file:1: expected a text or phones"));
  CHECK_THAT(refused("{\"text\":\"u\"}"), Contains("file:1: expected the id"));
  CHECK_THAT(refused("{\"id\":1,\"text\":\"u\"}"), Contains("file:1: id: expected a string"));
  CHECK_THAT(refused("{\"id\":\"u\",\"phones\":[1]}"), Contains("phones: expected a list"));
  CHECK_THAT(refused("{\"id\":\"u\",\"text\":\"a\"}\nnonsense\n"),
             Contains("file:2: not a line of JSON"));
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  CHECK_THAT(refused("{\"id\":" + deep + "}\n"), Contains("file:1: not a line of JSON"));
  CHECK_THAT(refused("u \xff\n"), Contains("file:1: expected UTF-8"));
  CHECK_THAT(message_of([] { transcript_format_from("stm"); }),
             Contains("expected trn, kaldi, tsv or manifest, got stm"));
}

TEST_CASE("Transcripts are written as they are read", "[score]") {
  const std::vector<Transcript> items = {{"s-1", "a b", {}, ""}, {"s-2", "", {}, ""}};
  for (const Format format : {Format::trn, Format::kaldi, Format::tsv}) {
    CHECK(parse_transcripts(format_transcripts(items, format), "file", format).items == items);
  }
  CHECK(format_transcripts({{"u", "", {"p", "q"}, ""}}, Format::trn) == "p q (u)\n");
  for (const auto& [id, text] : {std::pair("a b", "x"), std::pair("a(", "x"), std::pair("", "x"),
                                 std::pair("a", "x\ty"), std::pair("a", ";; x")}) {
    CHECK_THROWS_AS(format_transcripts({{id, text, {}, ""}}, Format::trn), centroid::Error);
  }
  CHECK_THROWS_AS(format_transcripts(items, Format::manifest), centroid::Error);
}

TEST_CASE("What is counted: words, characters or phones, normalised on request", "[score]") {
  const Transcript t{"u", "Ёлка — 'tis  <unk> x", {"p1", "sil", "p2"}, ""};
  NormalizeOptions plain;
  CHECK(scored_symbols(t, Unit::words, plain) == Strings{"Ёлка", "—", "'tis", "<unk>", "x"});
  NormalizeOptions all = plain;
  all.lowercase = all.strip_punctuation = true;
  CHECK(scored_symbols(t, Unit::words, all) == Strings{"ёлка", "tis", "unk", "x"});
  NormalizeOptions some = plain;
  some.ignore = {"<unk>", "sil", "gone"};
  some.map = {{"x", {"y", "z"}}, {"'tis", {}}, {"p1", {"p"}}, {"—", {"gone"}}};
  CHECK(scored_symbols(t, Unit::words, some) == Strings{"Ёлка", "y", "z"});
  CHECK(scored_symbols(t, Unit::phones, some) == Strings{"p", "p2"});
  CHECK(scored_symbols({"u", "аb c", {}, ""}, Unit::characters, plain) ==
        Strings{"а", "b", "<space>", "c"});
  plain.spaces = false;
  CHECK(scored_symbols({"u", "аb c", {}, ""}, Unit::characters, plain) == Strings{"а", "b", "c"});
  CHECK(scored_symbols({"u", "a b", {}, ""}, Unit::phones, plain) == Strings{"a", "b"});
  CHECK(scored_symbols({"u", "", {}, ""}, Unit::words, plain).empty());
  CHECK_THAT(message_of([&] {
               scored_symbols({"u", "", {"p"}, ""}, Unit::words, plain);
             }),
             Contains("u: expected a text, got phones alone"));
}

TEST_CASE("Maps of symbols and speakers of utterances", "[score]") {
  const auto map = parse_symbol_map("ax ah\n\nq\nwont will not\n", "map");
  CHECK(map.at("ax") == Strings{"ah"});
  CHECK(map.at("q").empty());
  CHECK(map.at("wont") == Strings{"will", "not"});
  CHECK_THAT(message_of([] { parse_symbol_map("a b\na c\n", "map"); }), Contains("map:2: 'a'"));
  CHECK(parse_utt2spk("u s\nv t\n", "utt2spk").at("v") == "t");
  CHECK_THAT(message_of([] { parse_utt2spk("u s x\n", "utt2spk"); }), Contains("utt2spk:1: "));
  CHECK_THAT(message_of([] { parse_utt2spk("u s\nu s\n", "utt2spk"); }), Contains("utt2spk:2: "));
  CHECK(speaker_of("spk_a-utt") == "spk_a");
  CHECK(speaker_of("spk_utt_1") == "spk");
  CHECK(speaker_of("utt") == "utt");
}
