#include "apps/audio/lexicon_trie.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include "tensor/error.h"

namespace centroid::audio {

LexiconTrie::LexiconTrie(const Lexicon& lexicon, const std::vector<std::string>& tokens, bool skip)
    : words_(lexicon.words()) {
  std::unordered_map<std::string, int32_t> numbers;
  for (size_t i = 1; i < tokens.size(); ++i) numbers.emplace(tokens[i], static_cast<int32_t>(i));
  std::vector<Entry> entries;
  std::string examples;
  for (size_t w = 0; w < words_.size(); ++w) {
    for (const Pronunciation& p : *lexicon.find(words_[w])) {
      Entry entry{{}, {static_cast<int32_t>(w), p.log_prob}};
      for (const std::string& phone : p.phones) {
        const auto it = numbers.find(phone);
        if (it != numbers.end()) {
          entry.tokens.push_back(it->second);
          continue;
        }
        if (++skipped_ <= 5) examples += concat(skipped_ > 1 ? ", " : "", phone, " of ", words_[w]);
        break;
      }
      if (entry.tokens.size() == p.phones.size()) entries.push_back(std::move(entry));
    }
  }
  CENTROID_CHECK(skipped_ == 0 || skip, "lexicon: ", skipped_,
                 " pronunciations have symbols that the recogniser does not know: ", examples,
                 skipped_ > 5 ? ", ..." : "", " (mend them, or leave them out)");
  CENTROID_CHECK(!entries.empty(),
                 "lexicon: expected pronunciations, got none that the "
                 "recogniser's symbols can spell");
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.tokens, a.word.word) < std::tie(b.tokens, b.word.word);
  });
  build(entries);
}

// Nodes level by level, so that siblings lie together. Of the sorted pronunciations that share a
// node's path, those that end there come first.
void LexiconTrie::build(const std::vector<Entry>& entries) {
  struct Part {
    size_t begin, end, depth;
  };
  std::vector<Part> parts{{0, entries.size(), 0}};
  token_ = {-1};
  for (size_t node = 0; node < parts.size(); ++node) {
    auto [begin, end, depth] = parts[node];
    end_begin_.push_back(static_cast<int32_t>(ends_.size()));
    child_begin_.push_back(static_cast<int32_t>(parts.size()));
    for (; begin < end && entries[begin].tokens.size() == depth; ++begin) {
      ends_.push_back(entries[begin].word);
    }
    while (begin < end) {
      const int32_t token = entries[begin].tokens[depth];
      size_t last = begin;
      while (last < end && entries[last].tokens[depth] == token) ++last;
      CENTROID_CHECK(parts.size() < std::numeric_limits<int32_t>::max(),
                     "lexicon: too many pronunciations");
      parts.push_back({begin, last, depth + 1});
      token_.push_back(token);
      begin = last;
    }
  }
  end_begin_.push_back(static_cast<int32_t>(ends_.size()));
  child_begin_.push_back(static_cast<int32_t>(parts.size()));
}

int32_t LexiconTrie::child(int32_t node, int32_t token) const {
  const auto begin = token_.begin() + child_begin_[node];
  const auto end = token_.begin() + child_begin_[node + 1];
  const auto it = std::lower_bound(begin, end, token);
  return it != end && *it == token ? static_cast<int32_t>(it - token_.begin()) : -1;
}

bool LexiconTrie::uses(int32_t token) const {
  return std::find(token_.begin(), token_.end(), token) != token_.end();
}

std::vector<double> LexiconTrie::look_ahead(const std::vector<double>& scores) const {
  std::vector<double> best(token_.size(), -std::numeric_limits<double>::infinity());
  for (size_t node = token_.size(); node-- > 0;) {  // children come after their parents
    for (const Word& w : ends(static_cast<int32_t>(node))) {
      best[node] = std::max(best[node], scores[w.word]);
    }
    for (int32_t c = child_begin_[node]; c < child_begin_[node + 1]; ++c) {
      best[node] = std::max(best[node], best[c]);
    }
  }
  return best;
}

}  // namespace centroid::audio
