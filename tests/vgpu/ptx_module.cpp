#include <algorithm>
#include <cstring>

#include "ptx_parse.h"
#include "vgpu.h"

namespace vgpu {

const Token& TokenReader::next() {
  if (current().kind == Token::Kind::kEnd) fault("PTX: unexpected end");
  return tokens_[at_++];
}

bool TokenReader::accept(std::string_view text) {
  if (!is(text)) return false;
  ++at_;
  return true;
}

void TokenReader::expect(std::string_view text) {
  if (!accept(text)) {
    fault("PTX: expected '%.*s' at '%.*s'", static_cast<int>(text.size()), text.data(),
          static_cast<int>(current().text.size()), current().text.data());
  }
}

void TokenReader::skip_past(std::string_view text) {
  while (!accept(text)) next();
}

void TokenReader::skip_braces() {
  int depth = 0;
  do {
    const Token& t = next();
    depth += is_punctuation(t, "{") - is_punctuation(t, "}");
  } while (depth > 0);
}

// [.align n] .type [.ptr ...] name [size]... ; the state space has been read.
Declaration read_declaration(TokenReader& in) {
  Declaration d;
  bool aligned = false;
  while (in.current().kind == Token::Kind::kWord && in.current().text[0] == '.') {
    const std::string_view word = in.next().text;
    if (word == ".align") {
      d.align = static_cast<u32>(in.next().value);
      aligned = true;
    } else if (word == ".ptr") {
      // Attributes of what a pointer points to: a space and an alignment.
      while (in.current().text.starts_with(".")) {
        if (in.next().text == ".align") in.next();
      }
    } else if (word == ".v2" || word == ".v4") {
      d.element *= word == ".v2" ? 2 : 4;
    } else if (word != ".noalias") {
      const Type type = type_named(word.substr(1));
      if (type == Type::kNone) {
        fault("PTX: type %.*s of a variable", static_cast<int>(word.size()), word.data());
      }
      d.element *= size_of(type);
    }
  }
  if (!aligned) d.align = d.element;
  d.name = in.next().text;
  u32 count = 1;
  while (in.accept("[")) {
    if (in.accept("]")) {
      d.unsized = true;
      continue;
    }
    count *= static_cast<u32>(in.next().value);
    in.expect("]");
  }
  d.size = d.element * count;
  return d;
}

namespace {

class ModuleReader {
 public:
  explicit ModuleReader(Module& module) : module_(module), in_(module.tokens) {}

  void run() {
    while (in_.current().kind != Token::Kind::kEnd) item();
    for (const Pending& p : pending_) store_symbol(p);
  }

 private:
  // An initialiser that names a variable or function, which may be declared later.
  struct Pending {
    std::string variable;
    size_t at;
    std::string symbol;
    u64 addend;
    u32 element;
  };

  void item() {
    if (in_.current().kind == Token::Kind::kLocation) {
      in_.next();
      return;
    }
    const Token& t = in_.next();
    const std::string_view word = t.text;
    if (word == ".visible" || word == ".weak" || word == ".extern" || word == ".common") return;
    if (word == ".target") {
      module_.target = target_of(in_.next().text);
      while (in_.accept(",")) in_.next();
    } else if (word == ".address_size") {
      if (in_.next().value != 64) fault("PTX: only 64-bit addresses");
    } else if (word == ".global" || word == ".const") {
      global();
    } else if (word == ".shared") {
      shared();
    } else if (word == ".entry" || word == ".func") {
      function(word == ".entry");
    } else if (word == ".pragma" || word == ".alias") {
      in_.skip_past(";");
    } else {
      fault("PTX: '%.*s' at module level", static_cast<int>(word.size()), word.data());
    }
  }

  static u32 target_of(std::string_view name) {  // sm_80, sm_100a
    u32 value = 0;
    for (const char c : name) {
      if (c >= '0' && c <= '9') value = value * 10 + static_cast<u32>(c - '0');
    }
    return value;
  }

  void global() {
    const Declaration d = read_declaration(in_);
    if (d.unsized && !in_.is("=")) {  // declared here, defined in another file
      in_.expect(";");
      return;
    }
    std::vector<char> bytes(d.unsized ? 0 : d.size);
    if (in_.accept("=")) initialiser(d, bytes);
    in_.expect(";");
    auto* address = static_cast<char*>(allocate_symbol(std::max<size_t>(bytes.size(), 1)));
    device_access_begin();
    std::memcpy(address, bytes.data(), bytes.size());
    device_access_end();
    module_.globals[std::string(d.name)] = {address, bytes.size()};
  }

  // A value or a nest of braces.
  void initialiser(const Declaration& d, std::vector<char>& bytes) {
    size_t at = 0;
    int depth = 0;
    do {
      const bool negative = in_.accept("-");
      const Token& t = in_.next();
      if (is_punctuation(t, "{")) ++depth;
      if (is_punctuation(t, "}")) --depth;
      if (t.kind != Token::Kind::kNumber && t.kind != Token::Kind::kWord) continue;
      if (bytes.size() < at + d.element) bytes.resize(at + d.element);
      if (t.kind == Token::Kind::kNumber) {
        const u64 value = negative ? 0 - t.value : t.value;
        std::memcpy(bytes.data() + at, &value, d.element);
      } else {
        const bool generic = t.text == "generic" && in_.accept("(");
        Pending p{std::string(d.name), at, std::string(generic ? in_.next().text : t.text), 0,
                  d.element};
        if (in_.accept("+")) p.addend = in_.next().value;
        if (generic) in_.expect(")");
        pending_.push_back(std::move(p));
      }
      at += d.element;
    } while (depth > 0);
  }

  void store_symbol(const Pending& p) {
    u64 value;
    if (const auto it = module_.globals.find(p.symbol); it != module_.globals.end()) {
      value = reinterpret_cast<u64>(it->second.address);
    } else if (const auto& names = module_.function_names;
               std::find(names.begin(), names.end(), p.symbol) != names.end()) {
      value = function_address(module_, p.symbol);
    } else {
      fault("PTX: initialiser names '%s', which is not defined in this file", p.symbol.c_str());
    }
    value += p.addend;
    device_access_begin();
    std::memcpy(static_cast<char*>(module_.globals[p.variable].address) + p.at, &value, p.element);
    device_access_end();
  }

  void shared() {
    const Declaration d = read_declaration(in_);
    in_.expect(";");
    if (!d.unsized) {
      fault("PTX: static shared array '%.*s' at module level", static_cast<int>(d.name.size()),
            d.name.data());
    }
    module_.shared[std::string(d.name)] = d.align;
  }

  // Only the extent of a function is read now; its text is parsed when it is first used.
  void function(bool is_kernel) {
    const size_t first = in_.position();
    if (in_.is("(")) in_.skip_past(")");
    const std::string name(in_.next().text);
    while (!in_.is("{") && !in_.is(";")) in_.next();
    const auto& names = module_.function_names;
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      module_.function_names.push_back(name);
    }
    if (in_.accept(";")) return;
    module_.headers[name] = {first, is_kernel};
    in_.skip_braces();
  }

  Module& module_;
  TokenReader in_;
  std::vector<Pending> pending_;
};

}  // namespace

u64 function_address(const Module& module, std::string_view name) {
  const auto& names = module.function_names;
  const auto it = std::find(names.begin(), names.end(), name);
  return kFunctionWindow + static_cast<u64>(it - names.begin()) * 16;
}

Module::Module(std::string_view ptx) : text(ptx), tokens(tokenize(text, *this)) {
  ModuleReader(*this).run();
}

u32 Module::dynamic_shared() const {
  u32 align = 16;
  for (const auto& [name, declared] : shared) align = std::max(align, declared);
  return kStaticShared + align;
}

Function* Module::find(std::string_view name) {
  if (const auto it = functions.find(name); it != functions.end()) return it->second.get();
  const auto header = headers.find(name);
  if (header == headers.end()) return nullptr;
  auto function = parse_function(*this, header->second.first_token, header->second.is_kernel);
  return (functions[header->first] = std::move(function)).get();
}

}  // namespace vgpu
