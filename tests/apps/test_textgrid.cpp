// TextGrid files: both formats, encodings, faults.
#include "apps/audio/textgrid.h"

#include "apps/audio/text.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;

namespace {

const char* const kLong = R"(File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0 
xmax = 2.5 
tiers? <exists> 
size = 2 
item []: 
    item [1]:
        class = "IntervalTier" 
        name = "words" 
        xmin = 0 
        xmax = 2.5 
        intervals: size = 2 
        intervals [1]:
            xmin = 0 
            xmax = 1.25 
            text = "say ""да"" !x" 
        intervals [2]:
            xmin = 1.25 
            xmax = 2.5 
            text = "" 
    item [2]:
        class = "TextTier" 
        name = "clicks" 
        xmin = 0 
        xmax = 2.5 
        points: size = 1 
        points [1]:
            number = 0.5 
            mark = "k" 
)";

const char* const kShort = R"(File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
2
"IntervalTier"
"words"
0
2.5
2
0
1.25
"say ""да"" !x"
1.25
2.5
""
"TextTier"
"clicks"
0
2.5
1
0.5
"k"
)";

void check_example(const TextGrid& grid) {
  CHECK(grid.end == 2.5);
  REQUIRE(grid.tiers.size() == 2);
  const Tier* words = grid.find("words");
  REQUIRE(words);
  CHECK_FALSE(words->points);
  REQUIRE(words->marks.size() == 2);
  CHECK(words->marks[0].text == "say \"да\" !x");
  CHECK(words->marks[0].end == 1.25);
  CHECK(words->marks[1].text.empty());
  CHECK(grid.tiers[1].points);
  CHECK(grid.tiers[1].marks.at(0).begin == 0.5);
  CHECK(grid.find("phones") == nullptr);
}

std::string utf16(const std::string& text, bool little) {
  std::string out = little ? "\xFF\xFE" : "\xFE\xFF";
  const auto put = [&](char32_t unit) {
    const char low = static_cast<char>(unit & 0xFF), high = static_cast<char>(unit >> 8);
    out += little ? low : high;
    out += little ? high : low;
  };
  for (const char32_t code : code_points(text)) {
    if (code < 0x10000) {
      put(code);
    } else {
      put(0xD800 + ((code - 0x10000) >> 10));
      put(0xDC00 + ((code - 0x10000) & 0x3FF));
    }
  }
  return out;
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != text.npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("TextGrids are read in both formats and written as they were", "[textgrid]") {
  for (const char* text : {kLong, kShort}) {
    const TextGrid grid = parse_textgrid(text, "x");
    check_example(grid);
    CHECK(format_textgrid(grid) == kLong);
    CHECK(format_textgrid(grid, true) == kShort);
  }
  check_example(
      parse_textgrid(replaced(kLong, "xmax = 2.5 ", "xmax = 2.5 ! \"a comment\" 7"), "x"));
  CHECK(parse_textgrid("\"ooTextFile\" \"TextGrid\" 0 1 <absent>", "x").tiers.empty());
}

TEST_CASE("TextGrids in UTF-16 are read", "[textgrid]") {
  const std::string text = replaced(kLong, "\"k\"", "\"\xF0\x9D\x84\x9E\"");  // beyond 16 bits
  for (const bool little : {false, true}) {
    const TextGrid grid = parse_textgrid(utf16(text, little), "x");
    check_example(grid);
    CHECK(grid.tiers[1].marks[0].text == "\xF0\x9D\x84\x9E");
  }
  CHECK_THROWS_WITH(parse_textgrid(utf16(kLong, true) + "x", "f"), Contains("odd number of bytes"));
  std::string half = utf16("\"", true) + std::string("\x01\xD8\x22\x00", 4);
  CHECK_THROWS_WITH(parse_textgrid(half, "f"), Contains("half of a surrogate pair"));
}

TEST_CASE("faulty TextGrids name file, line and fault", "[textgrid]") {
  const auto error = [](const std::string& text) {
    return message_of([&] { parse_textgrid(text, "f.TextGrid"); });
  };
  const std::string text = kLong;
  CHECK_THAT(error(""), Contains("expected File type, got the end of the file"));
  CHECK_THAT(error("0.5 125 a"), Contains("f.TextGrid:1: File type: expected a text in quotes"));
  CHECK_THAT(error(replaced(text, "\"TextGrid\"", "\"Sound\"")),
             Contains("f.TextGrid:2: Object class: expected TextGrid, got Sound"));
  CHECK_THAT(error(replaced(text, "1.25", "2.75")), Contains("f.TextGrid:17: expected a mark"));
  CHECK_THAT(error(replaced(text, "xmin = 1.25", "xmin = 1.2")), Contains("between 1.25 and 2.5"));
  CHECK_THAT(error(replaced(text, "size = 2", "size = 3")),
             Contains("expected class, got the end"));
  CHECK_THAT(error(replaced(text, "size = 2", "size = 1")),
             Contains("expected the end of the file"));
  CHECK_THAT(error(replaced(text, "size = 2", "size = 1.5")), Contains("expected a count"));
  CHECK_THAT(error(replaced(text, "IntervalTier", "PitchTier")), Contains("got PitchTier"));
  CHECK_THAT(error(replaced(text, "\"clicks\"", "\"clicks")), Contains("f.TextGrid:"));
  CHECK_THAT(error(text.substr(0, text.size() - 4)), Contains("does not end"));
  CHECK_THAT(error("\"\xE9\""), Contains("expected UTF-8 or UTF-16"));
  CHECK_THAT(error(std::string("ooBinaryFile\x08TextGrid\0", 22)), Contains("binary"));
}

TEST_CASE("tiers of segments have no gaps", "[textgrid]") {
  const Tier tier = interval_tier("words", {{"a", 0.2500001, 0.5}, {"b", 0.5, 0.75}}, 1.5);
  REQUIRE(tier.marks.size() == 4);
  CHECK(tier.marks[0].text.empty());
  CHECK(tier.marks[0].end == 0.25);
  CHECK(tier.marks[1].text == "a");
  CHECK(tier.marks[2].begin == 0.5);
  CHECK(tier.marks[3].text.empty());
  CHECK(tier.marks[3].end == 1.5);
  CHECK(interval_tier("words", {}, 2).marks.size() == 1);
  CHECK_THROWS_WITH(interval_tier("w", {{"a", 0, 1}, {"b", 0.5, 2}}, 3), Contains("tier w: b"));
  CHECK_THROWS_WITH(interval_tier("w", {{"a", 1, 1.0002}}, 3), Contains("tier w: a"));
  TextGrid grid;
  grid.end = 1;
  grid.tiers = {{"t", false, 0, 1, {{"a", 0.5, 0.25}}}};
  CHECK_THROWS_WITH(format_textgrid(grid), Contains("expected marks in order"));
  grid.tiers = {{"t", false, 0, 1, {{"\xFF", 0, 1}}}};
  CHECK_THROWS_WITH(format_textgrid(grid), Contains("expected UTF-8"));
}
