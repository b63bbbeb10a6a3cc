#include "apps/audio/subwords.h"

#include <algorithm>
#include <cstdlib>
#ifdef CENTROID_HAVE_SENTENCEPIECE
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#endif

#include "apps/audio/text.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr std::string_view kWordStart = "\xE2\x96\x81";  // U+2581

/// The byte that a piece `<0xE2>` stands for; -1 for other pieces.
int byte_of(const std::string& piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  char* end = nullptr;
  const long value = std::strtol(piece.c_str() + 3, &end, 16);
  return end == piece.c_str() + 5 ? static_cast<int>(value) : -1;
}

}  // namespace

std::string join_pieces(const std::vector<std::string>& pieces) {
  std::string joined, bytes;
  const auto end_bytes = [&] {
    joined += valid_utf8(bytes) ? bytes : "\xEF\xBF\xBD";
    bytes.clear();
  };
  for (const std::string& piece : pieces) {
    const int byte = byte_of(piece);
    if (byte >= 0) {
      bytes += static_cast<char>(byte);
      continue;
    }
    end_bytes();
    joined += piece;
  }
  end_bytes();
  std::string text;
  for (size_t at = 0; at < joined.size();) {
    const size_t end = std::min(joined.find(kWordStart, at), joined.size());
    text += joined.substr(at, end - at) + " ";
    at = end + kWordStart.size();
  }
  return collapse_spaces(text);
}

Subwords::Subwords(std::string bytes) : bytes_(std::move(bytes)) { load(); }

#ifdef CENTROID_HAVE_SENTENCEPIECE

namespace sp = sentencepiece;

namespace {

void check(const sp::util::Status& status, const std::string& what) {
  CENTROID_CHECK(status.ok(), "sub-words: ", what, ": ", status.message());
}

/// Sentences for the trainer.
class Sentences : public sp::SentenceIterator {
 public:
  explicit Sentences(const std::function<bool(std::string&)>& next) : next_(next) { Next(); }
  bool done() const override { return done_; }
  void Next() override { done_ = !next_(sentence_); }
  const std::string& value() const override { return sentence_; }
  sp::util::Status status() const override { return {}; }

 private:
  const std::function<bool(std::string&)>& next_;
  std::string sentence_;
  bool done_ = false;
};

}  // namespace

struct Subwords::Model {
  sp::SentencePieceProcessor processor;
};

bool Subwords::available() { return true; }

void Subwords::load() {
  auto model = std::make_shared<Model>();
  CENTROID_CHECK(!bytes_.empty(), "sub-words: expected a model of SentencePiece, got no bytes");
  check(model->processor.LoadFromSerializedProto(bytes_),
        "expected a model of SentencePiece, got other bytes");
  const sp::SentencePieceProcessor& p = model->processor;
  for (int i = 0; i < p.GetPieceSize(); ++i) {
    if (!p.IsUnknown(i) && !p.IsControl(i) && !p.IsUnused(i)) pieces_.push_back(p.IdToPiece(i));
  }
  CENTROID_CHECK(!pieces_.empty(), "sub-words: the model has no pieces");
  model_ = std::move(model);
}

Subwords::Subwords(std::string bytes, std::vector<std::string> pieces)
    : Subwords(std::move(bytes)) {
  CENTROID_CHECK(pieces == pieces_, "sub-words: the symbols are not the ", pieces_.size(),
                 " pieces of the model");
}

std::vector<std::string> Subwords::cut(const std::string& text) const {
  CENTROID_CHECK(text.find(kWordStart) == text.npos,
                 "sub-words: the text holds U+2581, which stands for a space in pieces");
  std::vector<std::string> pieces;
  check(model_->processor.Encode(text, &pieces), "the text cannot be cut");
  return pieces;
}

std::shared_ptr<const Subwords> Subwords::train(const std::function<bool(std::string&)>& next,
                                                const SubwordOptions& o) {
  CENTROID_CHECK(o.type == "unigram" || o.type == "bpe",
                 "sub-words: expected the type unigram or bpe, got ", o.type);
  CENTROID_CHECK(o.size >= 1 && o.size <= 1000000, "sub-words: expected 1 to 1000000, got ",
                 o.size);
  CENTROID_CHECK(o.coverage > 0 && o.coverage <= 1,
                 "sub-words: expected a coverage above 0 and up to 1, got ", o.coverage);
  // The text is taken as it is: it has been normalised, and scoring compares with it. A fixed
  // number of threads gives the same sums on every machine.
  const std::unordered_map<std::string, std::string> arguments = {
      {"model_type", o.type},
      {"vocab_size", std::to_string(o.size + 1)},
      {"character_coverage", concat(o.coverage)},
      {"normalization_rule_name", "identity"},
      {"input_sentence_size", std::to_string(o.sentences)},
      {"shuffle_input_sentence", "true"},
      {"max_sentence_length", "1000000"},
      {"unk_id", "0"},
      {"bos_id", "-1"},
      {"eos_id", "-1"},
      {"pad_id", "-1"},
      {"num_threads", "4"},
      {"minloglevel", "2"}};
  sp::SetRandomGeneratorSeed(static_cast<unsigned>(o.seed));
  Sentences sentences(next);
  CENTROID_CHECK(!sentences.done(), "sub-words: expected text to train on, got none");
  std::string bytes;
  check(sp::SentencePieceTrainer::Train(arguments, &sentences, &bytes),
        concat("training ", o.size, " pieces (the library counts one more, the unknown piece)"));
  return std::make_shared<Subwords>(std::move(bytes));
}

#else

struct Subwords::Model {};

namespace {

const char* const kMissing =
    "sub-words: this build has no SentencePiece (install libsentencepiece-dev and rebuild)";

}  // namespace

bool Subwords::available() { return false; }

void Subwords::load() { throw Error(kMissing); }

Subwords::Subwords(std::string bytes, std::vector<std::string> pieces)
    : bytes_(std::move(bytes)), pieces_(std::move(pieces)) {}

std::vector<std::string> Subwords::cut(const std::string&) const { throw Error(kMissing); }

std::shared_ptr<const Subwords> Subwords::train(const std::function<bool(std::string&)>&,
                                                const SubwordOptions&) {
  throw Error(kMissing);
}

#endif

}  // namespace centroid::audio
