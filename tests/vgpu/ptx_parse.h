#pragma once
// What the readers of modules and of function bodies share.
#include "ptx.h"

namespace vgpu {

inline bool is_punctuation(const Token& t, std::string_view text) {
  return t.kind == Token::Kind::kPunctuation && t.text == text;
}

/// A position in the tokens of a module.
class TokenReader {
 public:
  explicit TokenReader(const std::vector<Token>& tokens, size_t at = 0)
      : tokens_(tokens), at_(at) {}
  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next();
  bool is(std::string_view text) const {
    return current().text == text && current().kind != Token::Kind::kString;
  }
  bool accept(std::string_view text);
  void expect(std::string_view text);
  void skip_past(std::string_view text);
  /// From before an opening brace to behind the one that closes it.
  void skip_braces();
  size_t position() const { return at_; }

 private:
  const std::vector<Token>& tokens_;
  size_t at_;
};

struct Declaration {
  std::string_view name;
  u32 size = 0, align = 1, element = 1;
  bool unsized = false;
};
Declaration read_declaration(TokenReader& in);

inline u32 round_up(u32 value, u32 multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// The value of a function's name as an operand.
u64 function_address(const Module& module, std::string_view name);

}  // namespace vgpu
