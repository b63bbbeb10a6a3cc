// Tables of transcripts: TSV, CSV and Common Voice, and the rows that are no utterances.
#include <sstream>

#include "apps/audio/columns.h"
#include "tests/apps/prepare_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;

TEST_CASE("Tables: TSV, CSV with quotes, Common Voice and LJSpeech columns", "[prepare]") {
  TempFolder folder;
  folder.write_tone("s/a.wav");
  folder.write_tone("s/sub/b.wav");
  folder.write_tone("s/clips/c.wav");
  const auto read = [&](const std::string& text) {
    return collect(read_table, folder / "s", folder.write("t", text));
  };

  Prepared found = checked(read("a.wav\tsay \"a\", please\nsub/b.wav\tb\n\nlost.wav\tx\nshort\n"));
  CHECK(ids(found.utterances) == Strings{"a", "sub/b"});
  CHECK(found.utterances[0].text == "say \"a\", please");
  CHECK_THAT(problems(found).at("lost"), Contains("lost.wav: no such file"));
  CHECK_THAT(problems(found).at(folder / "t" + ":5"),
             Contains("2 columns as in the first row, got 1"));
  CHECK_THAT(problems(found).at("clips/c"), Contains("c.wav has no line in " + folder / "t"));
  CHECK(problems(found).size() == 3);

  // What is left of a wider row may be half of its text.
  found = checked(read("a.wav\tone\nsub/b.wav\ttwo\tthree\nclips/c\tfour\n"));
  CHECK(ids(found.utterances) == Strings{"a", "clips/c"});
  CHECK(problems(found).size() == 1);
  CHECK_THAT(problems(found).at(folder / "t" + ":2"),
             Contains("2 columns as in the first row, got 3"));

  found = checked(read("client_id\tpath\tsentence\nmary\tc.wav\tsea\n"));
  REQUIRE(found.utterances.size() == 1);
  CHECK(found.utterances[0].audio == folder / "s/clips/c.wav");
  CHECK(found.utterances[0].text == "sea");
  CHECK(found.utterances[0].speaker == "mary");

  found = checked(read("text,File\n\"one, \"\"two\"\"\",a.wav\n"));
  REQUIRE(found.utterances.size() == 1);
  CHECK(found.utterances[0].text == "one, \"two\"");

  // A stray quote takes in the rows up to the next one.
  found = read("file,text\na.wav,\"one\nsub/b.wav,two\nc.wav,\"three\na.wav,four\n");
  CHECK(ids(found.utterances) == Strings{"a"});
  CHECK_THAT(problems(found).at(folder / "t" + ":2"), Contains("spans lines 2 to 4"));
  CHECK(problems(found).size() == 3);  // and the sounds of the rows in it
  found = read("file,text\nc.wav,x\na.wav,\"one\nsub/b.wav,two\n");
  CHECK(ids(found.utterances) == Strings{"c"});
  CHECK_THAT(problems(found).at(folder / "t" + ":4"), Contains("took in lines 3 to 4"));

  found = checked(read("a|Printing, in the|printing\n"));
  REQUIRE(found.utterances.size() == 1);
  CHECK(found.utterances[0].id == "a");
  CHECK(found.utterances[0].text == "Printing, in the");

  CHECK_THAT(message_of([&] { read("a,\"never ends\n"); }),
             Contains("t:1: a quoted field does not end"));
  CHECK_THAT(message_of([&] { read("just words\n"); }), Contains("separated by"));
  CHECK_THAT(message_of([&] { read(""); }), Contains("empty file"));
}

TEST_CASE("Common Voice: columns by the header, quotes as its tables have them", "[prepare]") {
  TempFolder folder;
  folder.write_tone("cv/clips/common_voice_cs_1.wav");
  const std::string table =
      folder.write("cv/train.tsv",
                   "client_id\tpath\tsentence_id\tsentence\tup_votes\n"
                   "c1\tcommon_voice_cs_1.wav\tx\t\"Řekla \"\"ano\"\"\"\t2\r\n"
                   "c1\tcommon_voice_cs_2.mp3\tx\t\"a\" and \"b\"\t2\n"
                   "c2\tcommon_voice_cs_3.mp3\tx\t\"never closed\t2\n"
                   "c2\tcommon_voice_cs_4.mp3\tx\ttoo few\n"
                   "c2\t\tx\tno path\t1\n"
                   "c2\tcommon_voice_cs_6.mp3\tx\t\t1\n");
  const Prepared found = collect(read_common_voice, folder / "cv", table);
  REQUIRE(ids(found.utterances) == Strings{"common_voice_cs_1", "common_voice_cs_2",
                                           "common_voice_cs_3", "common_voice_cs_6"});
  CHECK(found.utterances[0].audio == folder / "cv/clips/common_voice_cs_1.wav");
  CHECK(found.utterances[0].speaker == "c1");
  CHECK(found.utterances[0].text == "Řekla \"ano\"");
  CHECK(found.utterances[1].text == "\"a\" and \"b\"");
  CHECK(found.utterances[1].audio == folder / "cv/clips/common_voice_cs_2.mp3");
  CHECK(found.utterances[2].text == "\"never closed");
  const auto bad = problems(found);
  CHECK(bad.size() == 2);
  CHECK_THAT(bad.at(table + ":5"), Contains("expected 5 columns as in the header, got 4"));
  CHECK_THAT(bad.at(table + ":6"), Contains("path"));
  const Prepared good = checked(found);
  CHECK(good.utterances.size() == 1);
  CHECK_THAT(problems(good).at("common_voice_cs_6"), Contains("text is empty"));
  CHECK_THAT(message_of([&] {
               collect(read_common_voice, folder / "cv", folder.write("x", "path\ttext\na\tb\n"));
             }),
             Contains("x:1: expected a header with the columns path and sentence"));
  CHECK_THAT(message_of([&] { collect(read_common_voice, folder / "cv", folder.write("x", "")); }),
             Contains("empty file"));
}

TEST_CASE("Rows: quoted fields over several lines, and where they end", "[prepare]") {
  const auto rows_of = [](const std::string& text, TableStyle style) {
    LineReader lines(std::make_unique<std::istringstream>(text), "t");
    RowReader rows(lines, style);
    std::vector<Strings> all;
    for (Strings row; rows.next(row);) all.push_back(row);
    return all;
  };
  CHECK(rows_of("a,\"b\nc\",d\n\n\"\",\"\"\"\"\n", TableStyle::commas) ==
        std::vector<Strings>{{"a", "b\nc", "d"}, {"", "\""}});
  CHECK(rows_of("a\t\"b\"\n", TableStyle::tabs) == std::vector<Strings>{{"a", "\"b\""}});
  CHECK(rows_of("a\t\"b\"\n", TableStyle::common_voice) == std::vector<Strings>{{"a", "b"}});
  CHECK(rows_of("\"\t\"\"\t\"\"\"\n", TableStyle::common_voice) ==
        std::vector<Strings>{{"\"", "", "\"\"\""}});
  CHECK(rows_of("", TableStyle::commas).empty());
  CHECK_THAT(message_of([&] { rows_of("a,b\nc,\"d\ne\n", TableStyle::commas); }),
             Contains("t:2: a quoted field does not end"));
  CHECK(style_of("a|b,c") == TableStyle::bars);
  CHECK(style_of("a|b\tc") == TableStyle::tabs);
}
