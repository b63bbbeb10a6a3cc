#pragma once
// Sub-words: pieces of words chosen by their counts (Kudo, "Subword regularization", ACL 2018:
// unigram; Sennrich et al., "Neural machine translation of rare words with subword units", ACL
// 2016: BPE), through the library SentencePiece.
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace centroid::audio {

/// How a model of sub-words is trained.
struct SubwordOptions {
  int size = 500;                ///< pieces, without the unknown one
  std::string type = "unigram";  ///< unigram or bpe
  /// Part of the characters of the text, by count, that the pieces cover.
  double coverage = 1;
  int64_t sentences = 1000000;  ///< a random sample of so many at most; 0: all
  uint64_t seed = 1;
};

/// A model that cuts words into pieces. `_` below stands for U+2581, with which pieces that begin a
/// word begin. Const and thread-safe.
class Subwords {
 public:
  /// Whether this build can train models and cut words (it has SentencePiece).
  static bool available();

  /// The model of these bytes, a file of SentencePiece. Throws when they are damaged, and in builds
  /// without SentencePiece.
  explicit Subwords(std::string bytes);

  /// The same with its known pieces: builds without SentencePiece can then join pieces, though not
  /// cut words. Throws when these are not the model's.
  Subwords(std::string bytes, std::vector<std::string> pieces);

  /// Trains on what `next(sentence)` gives until it returns false. Deterministic. Throws with the
  /// library's reason (text too short for so many pieces, too few of them for the characters).
  static std::shared_ptr<const Subwords> train(const std::function<bool(std::string&)>& next,
                                               const SubwordOptions& options);

  /// All pieces that text can be cut into, in the order of the model.
  const std::vector<std::string>& pieces() const { return pieces_; }

  /// `text` as pieces: "go on" -> "_go", "_o", "n". Characters that the model does not cover come
  /// out as they are, which is no piece of `pieces`. Throws in builds without SentencePiece, and
  /// for text that holds U+2581.
  std::vector<std::string> cut(const std::string& text) const;

  /// The model as it was read.
  const std::string& bytes() const { return bytes_; }

 private:
  struct Model;
  void load();

  std::string bytes_;
  std::vector<std::string> pieces_;
  std::shared_ptr<const Model> model_;
};

/// Pieces as text: "_go", "_o", "n" -> "go on". Byte pieces (`<0xE2>`) become their characters;
/// bytes that are none become U+FFFD.
std::string join_pieces(const std::vector<std::string>& pieces);

}  // namespace centroid::audio
