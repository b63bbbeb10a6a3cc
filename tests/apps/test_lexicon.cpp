// Pronunciation lexicons: three formats, and what is said about bad lines.
#include "apps/audio/lexicon.h"

#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;

namespace {

std::string error_in(const std::string& text) {
  return message_of([&] { parse_lexicon(text, "lex"); });
}

}  // namespace

TEST_CASE("A plain lexicon keeps words and pronunciations in order", "[lexicon]") {
  const Lexicon lexicon = parse_lexicon("the DH AH\ncat\tK  AE T\r\n\nthe DH IY\n", "lex");
  CHECK(lexicon.words() == Strings{"the", "cat"});
  REQUIRE(lexicon.find("the"));
  CHECK(*lexicon.find("the") == std::vector<Pronunciation>{{{"DH", "AH"}, 0}, {{"DH", "IY"}, 0}});
  CHECK(lexicon.best("the")->phones == Strings{"DH", "AH"});  // the first of equal ones
  CHECK(lexicon.best("cat")->phones == Strings{"K", "AE", "T"});
  CHECK(lexicon.find("dog") == nullptr);
  CHECK(lexicon.best("dog") == nullptr);
  CHECK(lexicon.phones() == Strings{"AE", "AH", "DH", "IY", "K", "T"});
  CHECK(Lexicon().empty());
  CHECK(Lexicon().phones().empty());
}

TEST_CASE("Probabilities are read when every line has one", "[lexicon]") {
  const Lexicon lexicon = parse_lexicon("a 0.25 AH\na 0.75 EY\nb 1 B IY\n", "lex");
  CHECK((*lexicon.find("a"))[0].log_prob == std::log(0.25));
  CHECK(lexicon.best("a")->phones == Strings{"EY"});
  CHECK(lexicon.best("b")->log_prob == 0);
  // One line without a number: they are phones.
  CHECK(parse_lexicon("a 0.25 AH\nb B\n", "lex").best("a")->phones == Strings{"0.25", "AH"});
  CHECK(parse_lexicon("a 5\n", "lex").best("a")->phones == Strings{"5"});
  // Where most lines have one, none may lack it: else all of them would be phones.
  CHECK_THAT(
      error_in("a 0.25 AH\nb 1 B\nc K\n"),
      Contains("lex:3: expected a probability after the word, as in 2 of 3 lines, got 'c K'"));
  CHECK_THAT(error_in("a 0.25 AH\nb 1e-400 B\nc 1 K\n"), Contains("lex:2: "));
}

TEST_CASE("The CMU dictionary's numbers, comments and remarks", "[lexicon]") {
  const Lexicon lexicon = parse_lexicon(
      ";;; # CMUdict\nA  AH0\nA(2)  EY1\nBASS B AE S # the fish\n(2) X\n:-( F R AW N\n", "lex");
  CHECK(lexicon.words() == Strings{"A", "BASS", "(2)", ":-("});
  CHECK(lexicon.find("A")->size() == 2);
  CHECK(lexicon.best("BASS")->phones == Strings{"B", "AE", "S"});
}

TEST_CASE("Bad lexicons are named with file and line", "[lexicon]") {
  CHECK_THAT(error_in(""), Contains("lex: expected a word and its phones a line, got no lines"));
  CHECK_THAT(error_in("a AH\nb\n"), Contains("lex:2: expected a word and its phones, got 'b'"));
  CHECK_THAT(error_in("a # AH\n"), Contains("lex:1: expected a word and its phones"));
  CHECK_THAT(error_in("a AH\na AH\n"), Contains("lex:2: ") && Contains("AH occurs twice"));
  CHECK_THAT(error_in("a 0 AH\nb 0.5 B\n"),
             Contains("lex:1: expected a probability above 0 and up to 1, got 0"));
  CHECK_THAT(error_in("a 1.5 AH\n"), Contains("got 1.5"));
  CHECK_THAT(error_in("a \xff\n"), Contains("lex:1: expected UTF-8"));
  CHECK_THAT(message_of([] { read_lexicon("/nowhere/lexicon.txt"); }), Contains("no such file"));
  Lexicon lexicon;
  CHECK_THROWS_AS(lexicon.add("", {{"A"}, 0}), centroid::Error);
  CHECK_THROWS_AS(lexicon.add("a", {{}, 0}), centroid::Error);
  CHECK_THROWS_AS(lexicon.add("a", {{"A"}, 0.1}), centroid::Error);
  CHECK_THROWS_AS(lexicon.add("a", {{"A"}, -INFINITY}), centroid::Error);
  CHECK(lexicon.empty());
}

TEST_CASE("A lexicon written is read back", "[lexicon]") {
  for (const char* text : {"the DH AH\nthe DH IY\ncat K AE T\n", "a 0.25 AH\na 0.75 EY\nb 1 B IY\n",
                           "one 1 1 W AH N\n", "a(x) A\n", "a 1 1 5 A\nb 1 1 6 B\nc 1 C\n"}) {
    const Lexicon lexicon = parse_lexicon(text, "lex");
    const Lexicon again = parse_lexicon(format_lexicon(lexicon), "again");
    CHECK(again.words() == lexicon.words());
    for (const std::string& word : lexicon.words()) {
      REQUIRE(again.find(word)->size() == lexicon.find(word)->size());
      for (size_t i = 0; i < lexicon.find(word)->size(); ++i) {
        CHECK((*again.find(word))[i].phones == (*lexicon.find(word))[i].phones);
        CHECK((*again.find(word))[i].log_prob == Approx((*lexicon.find(word))[i].log_prob));
      }
    }
  }
  CHECK(format_lexicon(parse_lexicon("the DH AH\n", "lex")) == "the DH AH\n");
  // Phones that look like probabilities would not come back as phones.
  CHECK(format_lexicon(parse_lexicon("one 1 0.5 N\n", "lex")) == "one 1 0.5 N\n");
  for (const auto& [word, phone] :
       {std::pair{"a b", "A"}, {"a(2)", "A"}, {";;;a", "A"}, {"a", "#"}, {"a", "A B"}}) {
    Lexicon lexicon;
    lexicon.add(word, {{phone}, 0});
    CHECK_THAT(message_of([&] { format_lexicon(lexicon); }), Contains("cannot be written"));
  }
}
