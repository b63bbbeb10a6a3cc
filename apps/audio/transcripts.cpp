#include "apps/audio/transcripts.h"

#include <algorithm>
#include <filesystem>

#include "apps/audio/fields.h"
#include "apps/audio/files.h"
#include "apps/audio/text.h"
#include "tensor/json.h"

namespace centroid::audio {

namespace {

using nlohmann::json;

constexpr std::pair<TranscriptFormat, const char*> kFormats[] = {
    {TranscriptFormat::trn, "trn"},
    {TranscriptFormat::kaldi, "kaldi"},
    {TranscriptFormat::tsv, "tsv"},
    {TranscriptFormat::manifest, "manifest"}};

/// Lines that say something, numbered from 1. Tabs at the end stay: they may end an empty column.
std::vector<Line> entries_of(std::string_view bytes, const std::string& name) {
  std::vector<Line> entries;
  size_t number = 0;
  for (std::string& line : lines_of(bytes, name)) {
    ++number;
    if (!trim(line).empty()) entries.push_back({number, std::move(line)});
  }
  return entries;
}

std::string single_spaced(std::string_view text) { return join(split_words(text), " "); }

/// `words (id)` in its two parts; an empty id where the line is no such thing.
Transcript split_trn(const std::string& line) {
  const std::string text = trim(line);
  const size_t open = text.rfind('(');
  if (open == text.npos || text.back() != ')') return {};
  const std::string id = text.substr(open + 1, text.size() - open - 2);
  if (id.find_first_of(" \t)") != id.npos) return {};
  return {id, single_spaced(text.substr(0, open)), {}, ""};
}

bool is_comment(const Line& line) { return trim(line.text).starts_with(";;"); }

std::vector<std::string> columns_of(const std::string& line) {
  std::vector<std::string> columns;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find('\t', begin), line.size());
    columns.push_back(single_spaced(line.substr(begin, end - begin)));
    begin = end + 1;
  }
  return columns;
}

/// Which column holds what; -1: none does.
struct Header {
  int id = 0, text = 1, speaker = -1;
  bool found = false;

  Header(const std::string& line, const std::string& place) {
    const auto find = [columns = columns_of(line)](std::initializer_list<const char*> names) {
      std::vector<int> at;
      for (size_t i = 0; i < columns.size(); ++i) {
        const auto name = std::find(names.begin(), names.end(), lowercase(columns[i]));
        if (name != names.end()) at.push_back(static_cast<int>(i));
      }
      return at;
    };
    const auto ids = find({"id", "utt", "utt_id", "utterance", "utterance_id"});
    const auto texts = find({"text", "transcript", "transcription", "sentence", "words", "phones"});
    const auto speakers = find({"speaker", "speaker_id", "client_id"});
    found = !ids.empty() && !texts.empty();
    if (!found) return;
    CENTROID_CHECK(
        std::max({ids.size(), texts.size(), speakers.size()}) == 1, place,
        ": expected a header with one column each for id, text and speaker, got: ", line);
    id = ids[0], text = texts[0], speaker = speakers.empty() ? -1 : speakers[0];
  }
};

TranscriptFormat detect(const std::vector<Line>& lines, const std::string& name) {
  const std::string first = trim(lines[0].text);
  if (first.starts_with('{') && first.ends_with('}')) return TranscriptFormat::manifest;
  size_t trn = 0, tabs = 0, comments = 0;
  const Line* other = nullptr;
  for (const Line& line : lines) {
    const bool fits = !split_trn(line.text).id.empty();
    trn += fits;
    tabs += line.text.find('\t') != line.text.npos;
    comments += is_comment(line);
    if (!fits && !is_comment(line) && !other) other = &line;
  }
  if (trn > 0 && !other) return TranscriptFormat::trn;
  CENTROID_CHECK(2 * trn <= lines.size() - comments, name, ":", other->number,
                 ": expected `words (id)` as in most lines of this file, got '", other->text,
                 "' (name the format if it is another one)");
  const bool table =
      Header(lines[0].text, concat(name, ":", lines[0].number)).found || tabs == lines.size();
  return table ? TranscriptFormat::tsv : TranscriptFormat::kaldi;
}

std::string string_at(const json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return "";
  CENTROID_CHECK(it->is_string(), key, ": expected a string, got ", it->dump());
  return it->get<std::string>();
}

Transcript parse_object(const std::string& line) {
  const json object = parse_json(line, "not a line of JSON");
  CENTROID_CHECK(object.is_object(), "expected a JSON object {...}, got ", object.type_name());
  CENTROID_CHECK(object.contains("text") || object.contains("phones"),
                 "expected a text or phones, got neither");
  Transcript t{string_at(object, "id"), single_spaced(string_at(object, "text")), {}, ""};
  t.speaker = string_at(object, "speaker");
  if (t.id.empty()) {
    std::string audio = string_at(object, "audio");
    if (audio.empty()) audio = string_at(object, "audio_filepath");
    t.id = std::filesystem::path(audio).replace_extension().generic_string();
    const json offset = object.value("offset", json());
    CENTROID_CHECK(offset.is_null() || offset.is_number(), "offset: expected seconds, got ",
                   offset.dump());
    if (offset.is_number() && offset.get<double>() > 0) t.id += concat("@", offset.get<double>());
  }
  const json phones = object.value("phones", json());
  CENTROID_CHECK(phones.is_null() || phones.is_array(), "phones: expected a list, got ",
                 phones.dump());
  for (const json& phone : phones) {
    CENTROID_CHECK(phone.is_string() && !phone.get_ref<const std::string&>().empty(),
                   "phones: expected a list of strings, got the element ", phone.dump());
    t.phones.push_back(phone.get<std::string>());
  }
  return t;
}

Transcript parse_line(const Line& line, TranscriptFormat format, const Header& header) {
  switch (format) {
    case TranscriptFormat::trn: {
      Transcript t = split_trn(line.text);
      CENTROID_CHECK(!t.id.empty(), "expected `words (id)`, got '", line.text, "'");
      return t;
    }
    case TranscriptFormat::kaldi: {
      const FirstWord parts = first_word(line.text);
      return {parts.word, single_spaced(parts.rest), {}, ""};
    }
    case TranscriptFormat::tsv: {
      const std::vector<std::string> columns = columns_of(line.text);
      const int count = static_cast<int>(columns.size());
      const int needed = std::max({header.id, header.text, header.speaker}) + 1;
      CENTROID_CHECK(count >= needed && (header.found || count == 2), "expected ",
                     header.found ? "at least " : "", needed, " columns with tabs between them, ",
                     "got ", count);
      return {columns[header.id],
              columns[header.text],
              {},
              header.speaker >= 0 ? columns[header.speaker] : ""};
    }
    case TranscriptFormat::manifest: return parse_object(line.text);
  }
  throw Error("transcripts: no such format");
}

}  // namespace

std::string name_of(TranscriptFormat format) { return find_name(kFormats, format, "transcripts"); }

TranscriptFormat transcript_format_from(const std::string& name) {
  return find_value(kFormats, name, "transcripts");
}

const Transcript* Transcripts::find(const std::string& id) const {
  const auto it = index_.find(id);
  return it == index_.end() ? nullptr : &items[it->second];
}

Transcripts parse_transcripts(std::string_view bytes, const std::string& name,
                              std::optional<TranscriptFormat> format) {
  const std::vector<Line> lines = entries_of(bytes, name);
  CENTROID_CHECK(!lines.empty(), name, ": expected transcripts, one a line, got an empty file");
  Transcripts out;
  out.name = name;
  out.format = format ? *format : detect(lines, name);
  const Header header(lines[0].text, concat(name, ":", lines[0].number));
  for (size_t i = 0; i < lines.size(); ++i) {
    if (out.format == TranscriptFormat::trn && is_comment(lines[i])) continue;
    if (out.format == TranscriptFormat::tsv && i == 0 && header.found) continue;
    try {
      Transcript t = parse_line(lines[i], out.format, header);
      CENTROID_CHECK(!t.id.empty(), "expected the id of an utterance, got none");
      CENTROID_CHECK(out.index_.emplace(t.id, out.items.size()).second, "the id ", t.id,
                     " appears twice");
      out.items.push_back(std::move(t));
    } catch (const Error& error) {
      throw Error(concat(name, ":", lines[i].number, ": ", error.what()));
    }
  }
  CENTROID_CHECK(!out.items.empty(), name, ": expected transcripts, one a line, got none");
  return out;
}

Transcripts read_transcripts(const std::string& path, std::optional<TranscriptFormat> format) {
  return parse_transcripts(read_text(path), path, format);
}

std::string format_transcripts(const std::vector<Transcript>& items, TranscriptFormat format) {
  const bool trn = format == TranscriptFormat::trn, tsv = format == TranscriptFormat::tsv;
  CENTROID_CHECK(
      format != TranscriptFormat::manifest,
      "transcripts: expected trn, kaldi or tsv, got manifest (asr prepare writes those)");
  std::string out = tsv ? "id\ttext\n" : "";
  for (const Transcript& t : items) {
    const std::string text = t.phones.empty() ? t.text : join(t.phones, " ");
    const std::string forbidden = trn ? " ()" : tsv ? "" : " ";
    CENTROID_CHECK(!t.id.empty() && single_spaced(t.id) == t.id &&
                       t.id.find_first_of(forbidden) == t.id.npos && t.id.find('\0') == t.id.npos,
                   "transcripts: the id '", t.id, "' cannot stand in a ", name_of(format), " file");
    CENTROID_CHECK(single_spaced(text) == text && text.find('\0') == text.npos &&
                       !(trn && text.starts_with(";;")),
                   "transcripts: ", t.id, ": the text cannot stand in a ", name_of(format),
                   " file");
    if (trn) {
      out += text + (text.empty() ? "(" : " (") + t.id + ")\n";
    } else {
      out += t.id + (tsv ? "\t" : text.empty() ? "" : " ") + text + "\n";
    }
  }
  CENTROID_CHECK(!out.starts_with("\xEF\xBB\xBF"),
                 "transcripts: the first line cannot begin with a byte order mark");
  return out;
}

std::map<std::string, std::vector<std::string>> parse_symbol_map(std::string_view bytes,
                                                                 const std::string& name) {
  std::map<std::string, std::vector<std::string>> map;
  for (const Line& line : entries_of(bytes, name)) {
    std::vector<std::string> words = split_words(line.text);
    const std::string from = words[0];
    words.erase(words.begin());
    CENTROID_CHECK(map.emplace(from, std::move(words)).second, name, ":", line.number, ": '", from,
                   "' has a line already");
  }
  return map;
}

std::vector<std::string> scored_symbols(const Transcript& t, Unit unit,
                                        const NormalizeOptions& options) {
  CENTROID_CHECK(unit == Unit::phones || !t.text.empty() || t.phones.empty(), t.id,
                 ": expected a text, got phones alone (--unit phones)");
  std::vector<std::string> words;
  if (unit == Unit::phones) {
    words = t.phones.empty() ? split_words(t.text) : t.phones;
    if (options.lowercase) {
      for (std::string& word : words) word = lowercase(word);
    }
  } else {
    std::string text = options.lowercase ? lowercase(t.text) : t.text;
    text = options.strip_punctuation ? strip_punctuation(text) : collapse_spaces(text);
    words = split_words(text);
  }
  std::vector<std::string> kept;
  for (const std::string& word : words) {
    const auto mapped = options.map.find(word);
    for (const std::string& w :
         mapped == options.map.end() ? std::vector<std::string>{word} : mapped->second) {
      if (!options.ignore.contains(w)) kept.push_back(w);
    }
  }
  if (unit != Unit::characters) return kept;
  return symbols({"", "", 0, 0, join(kept, options.spaces ? " " : ""), {}, ""}, unit);
}

std::map<std::string, std::string> parse_utt2spk(std::string_view bytes, const std::string& name) {
  std::map<std::string, std::string> speakers;
  for (const Line& line : entries_of(bytes, name)) {
    const std::vector<std::string> words = split_words(line.text);
    CENTROID_CHECK(words.size() == 2, name, ":", line.number, ": expected `id speaker`, got '",
                   line.text, "'");
    CENTROID_CHECK(speakers.emplace(words[0], words[1]).second, name, ":", line.number, ": the id ",
                   words[0], " appears twice");
  }
  return speakers;
}

std::string speaker_of(const std::string& id) {
  for (const char separator : {'-', '_'}) {
    if (const size_t at = id.find(separator); at != id.npos) return id.substr(0, at);
  }
  return id;
}

}  // namespace centroid::audio
