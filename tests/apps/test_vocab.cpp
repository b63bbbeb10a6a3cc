// Vocabularies and the handling of UTF-8 text.
#include "apps/audio/vocab.h"

#include <nlohmann/json.hpp>

#include "apps/audio/files.h"
#include "apps/audio/text.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;

namespace {

Utterance utterance(const std::string& text, Strings phones = {}) {
  Utterance u;
  u.id = "u1";
  u.text = text;
  u.phones = std::move(phones);
  return u;
}

}  // namespace

TEST_CASE("Phones are numbered in sorted order after the blank") {
  const Utterance a = utterance("x", {"t", "a", "sch", "a"}), b = utterance("y", {"b"});
  const Vocab vocab = build_vocab({a, b}, Unit::phones);
  CHECK(vocab.tokens() == Strings{"<blank>", "a", "b", "sch", "t"});
  CHECK(vocab.size() == 5);
  CHECK(vocab.encode(a) == std::vector<int32_t>{4, 1, 3, 1});
  CHECK(vocab.decode({4, 1, 3, 1}) == a.phones);
  CHECK(vocab.text(a.phones) == "t a sch a");
  CHECK(vocab.encode(utterance("")).empty());
}

TEST_CASE("Characters are code points, with <space> between words") {
  const Utterance u = utterance(" Ёж  и\tя ");
  const Vocab exact = build_vocab({u}, Unit::characters);
  CHECK(exact.tokens() == Strings{"<blank>", "<space>", "Ё", "ж", "и", "я"});
  CHECK(exact.symbols(u) == Strings{"Ё", "ж", "<space>", "и", "<space>", "я"});
  CHECK(exact.text(exact.decode(exact.encode(u))) == "Ёж и я");
  const Vocab lower = build_vocab({u}, Unit::characters, true);
  CHECK(lower.tokens() == Strings{"<blank>", "<space>", "ж", "и", "я", "ё"});
  CHECK(lower.text(lower.decode(lower.encode(u))) == "ёж и я");
  CHECK(build_vocab({utterance("ab")}, Unit::characters).tokens() == Strings{"<blank>", "a", "b"});
}

TEST_CASE("Words are separated by any white space") {
  const Utterance u = utterance("press one\n press  two");
  const Vocab vocab = build_vocab({u}, Unit::words);
  CHECK(vocab.tokens() == Strings{"<blank>", "one", "press", "two"});
  CHECK(vocab.text(vocab.decode(vocab.encode(u))) == "press one press two");
}

TEST_CASE("An unknown symbol is named with its utterance") {
  const Vocab vocab = build_vocab({utterance("abc")}, Unit::characters);
  CHECK_THAT(message_of([&] { vocab.encode(utterance("abд")); }),
             Contains("utterance u1") && Contains("\"д\""));
  CHECK_THAT(message_of([&] { vocab.decode({0}); }), Contains("1..3, got 0"));
  CHECK_THAT(message_of([&] { vocab.decode({4}); }), Contains("got 4"));
  CHECK_THAT(message_of([&] { build_vocab({utterance("abc")}, Unit::phones); }),
             Contains("none of the 1 utterances has phones"));
  CHECK_THROWS_AS(Vocab(Unit::words, {"a", "a"}), centroid::Error);
  CHECK_THROWS_AS(Vocab(Unit::words, {""}), centroid::Error);
  CHECK_THROWS_AS(Vocab(Unit::words, {"<blank>"}), centroid::Error);
  CHECK_THAT(message_of([] { unit_from("letters"); }),
             Contains("phones, characters or words, got letters"));
}

TEST_CASE("A vocabulary survives its file, and a wrong file is named") {
  TempFolder folder;
  const Vocab vocab = build_vocab({utterance("Ёж и я")}, Unit::characters, true);
  write_vocab(folder / "vocab.json", vocab);
  CHECK(read_vocab(folder / "vocab.json") == vocab);
  CHECK(read_vocab(folder / "vocab.json").encode(utterance("ёж")) == vocab.encode(utterance("ёж")));
  const auto says = [&](const std::string& text, const std::string& what) {
    const std::string path = folder.write("bad.json", text);
    CHECK_THAT(message_of([&] { read_vocab(path); }), Contains(path) && Contains(what));
  };
  says("{", "parse");
  says("{}", "tokens");
  says(R"({"unit": "phones", "tokens": ["a", "b"]})", "<blank>");
  says(R"({"unit": "phones", "tokens": ["<blank>", 3]})", "expected {");
  says(R"({"unit": "phones", "tokens": ["<blank>", "a", "a"]})", "a appears twice");
}

TEST_CASE("UTF-8 is checked strictly") {
  CHECK(valid_utf8(""));
  CHECK(valid_utf8("aё漢😀"));
  for (const char* bad : {"\x80", "\xC0\xAF", "\xC3", "\xE0\x80\xAF", "\xED\xA0\x80",
                          "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "a\xFF"}) {
    CHECK_FALSE(valid_utf8(bad));
    CHECK_THROWS_AS(code_points(bad), centroid::Error);
  }
  CHECK(code_points("aё漢😀") == std::vector<char32_t>{'a', 0x451, 0x6F22, 0x1F600});
  for (const char32_t code : {0x24, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF}) {
    CHECK(code_points(to_utf8(code)) == std::vector<char32_t>{code});
  }
  CHECK_THROWS_AS(to_utf8(0xD800), centroid::Error);
}

TEST_CASE("Letter case and punctuation of several scripts") {
  CHECK(lowercase("ÀÉ×ß ŁŽŸ ΑΏΣ АЯЁЇ ԱՖ Az09") == "àé×ß łžÿ αώσ аяёї աֆ az09");
  CHECK(strip_punctuation("\"Don't\" -- stop, серо-карие... «да»! 3.5 'x'") ==
        "Don't stop серо карие да 35 x");
  CHECK(strip_punctuation("…!? 。「」") == "");
  CHECK(collapse_spaces(" a \t b\u00A0c\n") == "a b c");
  CHECK(display_width("aё") == 2);
  CHECK(display_width("漢字") == 4);
  CHECK(display_width("e\u0301") == 1);
}
