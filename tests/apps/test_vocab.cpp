// Vocabularies and the handling of UTF-8 text.
#include "apps/audio/vocab.h"

#include <nlohmann/json.hpp>

#include "apps/audio/base64.h"
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

TEST_CASE("Phones are numbered in sorted order after the blank", "[vocab]") {
  const Utterance a = utterance("x", {"t", "a", "sch", "a"}), b = utterance("y", {"b"});
  const Vocab vocab = build_vocab({a, b}, Unit::phones);
  CHECK(vocab.tokens() == Strings{"<blank>", "a", "b", "sch", "t"});
  CHECK(vocab.size() == 5);
  CHECK(vocab.encode(a) == std::vector<int32_t>{4, 1, 3, 1});
  CHECK(vocab.decode({4, 1, 3, 1}) == a.phones);
  CHECK(vocab.text(a.phones) == "t a sch a");
  CHECK(vocab.encode(utterance("")).empty());
}

TEST_CASE("Characters are code points, with <space> between words", "[vocab]") {
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

TEST_CASE("Words are separated by any white space", "[vocab]") {
  const Utterance u = utterance("press one\n press  two");
  const Vocab vocab = build_vocab({u}, Unit::words);
  CHECK(vocab.tokens() == Strings{"<blank>", "one", "press", "two"});
  CHECK(vocab.text(vocab.decode(vocab.encode(u))) == "press one press two");
}

TEST_CASE("An unknown symbol is named with its utterance", "[vocab]") {
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
             Contains("phones, characters, words or subwords, got letters"));
}

TEST_CASE("A vocabulary survives its file, and a wrong file is named", "[vocab]") {
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

TEST_CASE("Base64: every length, and text that is none", "[vocab]") {
  CHECK(to_base64("") == "");
  CHECK(to_base64("f") == "Zg==");
  CHECK(to_base64("fo") == "Zm8=");
  CHECK(to_base64("foobar") == "Zm9vYmFy");
  std::string bytes;
  for (int i = 0; i < 300; ++i) {
    CHECK(from_base64(to_base64(bytes)) == bytes);
    bytes += static_cast<char>(37 * i);
  }
  for (const char* bad : {"Zg=", "Z", "Zg=a", "Z===", "====", "Zh==", "Zm9=", "Z g=", "Zg==Zg=="}) {
    CHECK_THAT(message_of([&] { from_base64(bad); }), Contains("base64"));
  }
}

TEST_CASE("Pieces of words are joined, in any build", "[vocab]") {
  CHECK(join_pieces({"▁go", "▁o", "n"}) == "go on");
  CHECK(join_pieces({"go", "▁", "▁", "on", "▁"}) == "go on");
  CHECK(join_pieces({}) == "");
  CHECK(join_pieces({"▁", "<0xD0>", "<0xB6>", "a", "<0xD0>", "b", "<0xXX>"}) == "жa\uFFFDb<0xXX>");
}

#ifdef CENTROID_HAVE_SENTENCEPIECE

namespace {

const Strings& sentences() {
  static const Strings all = [] {
    Strings made;
    for (const char* a : {"press", "dial", "say", "enter"}) {
      for (const char* b : {"one", "two", "three", "the number", "the extension"}) {
        for (const char* c : {"now", "again", "please"}) {
          made.push_back(std::string(a) + " " + b + " " + c);
        }
      }
    }
    return made;
  }();
  return all;
}

std::shared_ptr<const Subwords> train(SubwordOptions options) {
  size_t at = 0;
  return Subwords::train(
      [&](std::string& sentence) {
        if (at == sentences().size()) return false;
        sentence = sentences()[at++];
        return true;
      },
      options);
}

}  // namespace

TEST_CASE("Sub-words: as many as asked for, cut and joined without loss", "[vocab]") {
  for (const char* type : {"unigram", "bpe"}) {
    SubwordOptions options;
    options.size = 28;
    options.type = type;
    const auto model = train(options);
    CHECK(model->pieces().size() == 28);
    const Vocab vocab(model);
    CHECK(vocab.size() == 29);
    CHECK(vocab.unit() == Unit::subwords);
    int64_t pieces = 0, letters = 0;
    for (const std::string& sentence : sentences()) {
      const Utterance u = utterance("  " + sentence + " ");
      const auto ids = vocab.encode(u);
      CHECK(vocab.text(vocab.decode(ids)) == sentence);
      pieces += static_cast<int64_t>(ids.size());
      letters += static_cast<int64_t>(sentence.size());
    }
    CHECK(pieces < letters);
    CHECK(train(options)->bytes() == model->bytes());
    CHECK_THAT(message_of([&] { vocab.encode(utterance("press жа")); }),
               Contains("not in the voc"));
    CHECK_THAT(message_of([&] { vocab.encode(utterance("press ▁")); }), Contains("U+2581"));
    CHECK(vocab.encode(utterance("")).empty());
  }
  CHECK_THAT(message_of([] { train({.size = 100000}); }),
             Contains("sub-words: training ") && Contains("ocabulary size"));
  for (const int size : {1, 3, 100000}) {
    CHECK_THAT(message_of([&] { train({.size = size, .type = "bpe"}); }), Contains("sub-words"));
  }
  CHECK_THAT(message_of([] { train({.size = 3}); }),
             Contains("sub-words: training ") && Contains("ocabulary size"));
  CHECK_THAT(message_of([] { train({.size = 28, .type = "word"}); }), Contains("unigram or bpe"));
  CHECK_THAT(message_of([] { Subwords::train([](std::string&) { return false; }, {}); }),
             Contains("got none"));
  CHECK_THAT(message_of([] { Subwords("no model"); }), Contains("expected a model"));
  CHECK_THAT(message_of([] { Subwords(""); }), Contains("no bytes"));
  CHECK_THAT(message_of([] { symbols(utterance("a"), Unit::subwords); }), Contains("vocabulary"));
}

TEST_CASE("A vocabulary of sub-words carries its model", "[vocab]") {
  TempFolder folder;
  const Vocab vocab(train({.size = 28}), true);
  write_vocab(folder / "vocab.json", vocab);
  const Vocab again = read_vocab(folder / "vocab.json");
  CHECK(again == vocab);
  CHECK(again.encode(utterance("PRESS one")) == vocab.encode(utterance("press one")));
  nlohmann::json json = vocab;
  const auto says = [&](const char* key, const nlohmann::json& value, const std::string& what) {
    nlohmann::json bad = json;
    bad[key] = value;
    CHECK_THAT(message_of([&] { bad.get<Vocab>(); }), Contains(what));
  };
  std::string model = json["subword_model"];
  says("subword_model", model.substr(0, model.size() / 8 * 4), "damaged");
  says("subword_model", "???", "base64");
  says("subword_model", 3, "expected {");
  says("subword_hash", "0", "damaged");
  says("tokens", Strings{"<blank>", "a"}, "not the 28 pieces");
}

#else

TEST_CASE("Builds without SentencePiece join sub-words but do not cut", "[vocab]") {
  CHECK_FALSE(Subwords::available());
  CHECK_THAT(message_of([] { Subwords("bytes"); }), Contains("libsentencepiece-dev"));
  const Vocab vocab(std::make_shared<Subwords>("bytes", Strings{"▁go", "▁on"}));
  CHECK(vocab.text(vocab.decode({1, 2})) == "go on");
  CHECK_THAT(message_of([&] { vocab.encode(utterance("go")); }), Contains("libsentencepiece-dev"));
}

#endif

TEST_CASE("UTF-8 is checked strictly", "[vocab]") {
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

TEST_CASE("Letter case and punctuation of several scripts", "[vocab]") {
  CHECK(lowercase("ÀÉ×ß ŁŽŸ ΑΏΣ АЯЁЇ ԱՖ Az09") == "àé×ß łžÿ αώσ аяёї աֆ az09");
  CHECK(uppercase("àé×ß łžÿ αώσς аяёї աֆ az09") == "ÀÉ×ß ŁŽŸ ΑΏΣΣ АЯЁЇ ԱՖ AZ09");
  CHECK(lowercase("İıI") == "iıi");
  for (char32_t c = 0x20; c < 0x1F00; ++c) {  // every letter that has a lower case comes back
    if (c >= 0xD800 || lowercase(to_utf8(c)) == to_utf8(c) || c == 0x130) continue;
    CHECK(uppercase(lowercase(to_utf8(c))) == to_utf8(c));
  }
  CHECK(strip_punctuation("\"Don't\" -- stop, серо-карие... «да»! 3.5 'x'") ==
        "Don't stop серо карие да 35 x");
  CHECK(strip_punctuation("…!? 。「」") == "");
  CHECK(collapse_spaces(" a \t b\u00A0c\n") == "a b c");
  CHECK(display_width("aё") == 2);
  CHECK(display_width("漢字") == 4);
  CHECK(display_width("e\u0301") == 1);
}
