#include "ptx_parse.h"

#include <charconv>
#include <utility>

#include "ptx_specials.h"
#include "vgpu.h"

namespace vgpu {
namespace {

constexpr u32 kNarrowBytes = 4 * kLanes, kWideBytes = 8 * kLanes;
// A red zone around every shared variable, so that an index past its end hits no neighbour.
constexpr u32 kSharedGap = 64;

class FunctionReader {
 public:
  FunctionReader(Module& module, size_t first_token, bool is_kernel)
      : module_(module), in_(module.tokens, first_token), f_(std::make_unique<Function>()) {
    f_->module = &module;
    f_->is_kernel = is_kernel;
    f_->register_bytes = kNarrowBytes;  // word 0 is the predicate that is always true
    f_->locations.push_back({});
    sink_ = allocate(kWideBytes);
    scopes_.push_back({});
  }

  std::unique_ptr<Function> run() {
    if (in_.accept("(")) parameters(f_->results);
    f_->name = in_.next().text;
    if (in_.accept("(")) parameters(f_->params);
    attributes();
    in_.expect("{");
    body();
    finish();
    return std::move(f_);
  }

 private:
  struct Registers {
    u32 first, count, stride;
    bool is_wide, is_predicate;
  };
  struct Symbol {
    StateSpace space;
    u64 value;
  };
  struct Scope {
    size_t parent = 0;
    u32 local_top = 0;
    std::unordered_map<std::string_view, Registers> registers;
    std::unordered_map<std::string_view, Symbol> symbols;
    std::unordered_map<std::string_view, u32> labels;
  };
  struct Label {
    size_t scope;
    std::string_view name;
  };

  // ---- declarations
  // ------------------------------------------------------------------------------

  u32 allocate(u32 bytes) {
    const u32 at = f_->register_bytes;
    f_->register_bytes += round_up(bytes, kNarrowBytes);
    return at;
  }

  u32 allocate_local(u32 bytes, u32 align) {
    const u32 at = round_up(local_top_, align);
    local_top_ = at + bytes;
    f_->local_bytes = std::max(f_->local_bytes, local_top_);
    return at;
  }

  void add_symbol(std::string_view name, StateSpace space, u64 value) {
    scopes_[scope_].symbols[name] = {space, value};
  }

  // A kernel's parameters are in a buffer of their own; those of a device function, and results,
  // are the first of its local memory: the code takes their addresses as local ones.
  void parameters(std::vector<Variable>& list) {
    while (!in_.accept(")")) {
      in_.expect(".param");
      const Declaration d = read_declaration(in_);
      Variable v{std::string(d.name), 0, d.size, d.align};
      if (f_->is_kernel) {
        v.offset = round_up(f_->param_bytes, d.align);
        f_->param_bytes = v.offset + d.size;
        add_symbol(d.name, StateSpace::kParam, v.offset);
      } else {
        v.offset = allocate_local(d.size, d.align);
        add_symbol(d.name, StateSpace::kLocal, v.offset);
      }
      list.push_back(std::move(v));
      in_.accept(",");
    }
  }

  void attributes() {
    while (!in_.is("{")) {
      const std::string_view word = in_.next().text;
      if (word == ".maxntid" || word == ".reqntid") {
        f_->max_threads = static_cast<u32>(in_.next().value);
        while (in_.accept(",")) f_->max_threads *= static_cast<u32>(in_.next().value);
      } else if (word == ".explicitcluster" || word == ".reqnctapercluster") {
        fault("PTX: thread block clusters (%s of %s)", std::string(word).c_str(), f_->name.c_str());
      }
    }
  }

  void register_declaration() {
    const Type type = type_named(in_.next().text.substr(1));
    if (type == Type::kNone) fault("PTX: register type in %s", f_->name.c_str());
    const bool predicate = type == Type::kPred, wide = size_of(type) == 8;
    do {
      const std::string_view name = in_.next().text;
      u32 count = 1;
      if (in_.accept("<")) {
        count = static_cast<u32>(in_.next().value);
        in_.expect(">");
      }
      const u32 stride = predicate ? 4 : wide ? kWideBytes : kNarrowBytes;
      scopes_[scope_].registers[name] = {allocate(stride * count), count, stride, wide, predicate};
    } while (in_.accept(","));
    in_.expect(";");
  }

  // A variable has exactly its declared alignment, never more by luck: the address is an odd
  // multiple.
  void shared_declaration() {
    const Declaration d = read_declaration(in_);
    in_.expect(";");
    if (d.unsized) return add_symbol(d.name, StateSpace::kShared, module_.dynamic_shared());
    const u32 offset = d.align >= 128
                           ? round_up(f_->shared_bytes + kSharedGap, d.align)
                           : round_up(f_->shared_bytes + kSharedGap, 2 * d.align) + d.align;
    f_->shared.push_back({std::string(d.name), offset, d.size, d.align});
    f_->shared_bytes = offset + d.size;
    if (f_->shared_bytes > kStaticShared) fault("PTX: shared memory of %s", f_->name.c_str());
    add_symbol(d.name, StateSpace::kShared, offset);
  }

  void local_declaration() {
    const Declaration d = read_declaration(in_);
    in_.expect(";");
    add_symbol(d.name, StateSpace::kLocal, allocate_local(d.size, d.align));
  }

  // ---- operands
  // ------------------------------------------------------------------------------------

  Operand constant(u64 value, bool local = false) {
    const auto [it, is_new] = constants_.try_emplace({value, local}, 0);
    if (is_new) {
      it->second = allocate(kNarrowBytes + kWideBytes);
      f_->constants.push_back({it->second, it->second + kNarrowBytes, value, local});
    }
    Operand o;
    o.narrow = it->second;
    o.wide = it->second + kNarrowBytes;
    o.is_constant = true;
    return o;
  }

  static Operand register_at(const Registers& r, u32 index) {
    Operand o;
    o.narrow = o.wide = r.first + r.stride * index;
    o.is_wide = r.is_wide;
    o.is_predicate = r.is_predicate;
    return o;
  }

  // %r12 is the 12th of a range declared as %r<n>, or a register declared under its full name.
  bool find_register(std::string_view name, Operand& out) const {
    const size_t digits = name.find_last_not_of("0123456789") + 1;
    u32 index = 0;
    std::from_chars(name.data() + digits, name.data() + name.size(), index);
    for (size_t s = scope_;; s = scopes_[s].parent) {
      const auto& registers = scopes_[s].registers;
      if (const auto it = registers.find(name); it != registers.end()) {
        return out = register_at(it->second, 0), true;
      }
      if (digits < name.size()) {
        const auto it = registers.find(name.substr(0, digits));
        if (it != registers.end() && index < it->second.count) {
          return out = register_at(it->second, index), true;
        }
      }
      if (s == 0) return false;
    }
  }

  bool find_symbol(std::string_view name, Symbol& out) const {
    for (size_t s = scope_;; s = scopes_[s].parent) {
      const auto it = scopes_[s].symbols.find(name);
      if (it != scopes_[s].symbols.end()) return out = it->second, true;
      if (s == 0) break;
    }
    if (module_.shared.contains(name))
      return out = {StateSpace::kShared, module_.dynamic_shared()}, true;
    if (const auto it = module_.globals.find(name); it != module_.globals.end()) {
      return out = {StateSpace::kGlobal, reinterpret_cast<u64>(it->second.address)}, true;
    }
    const auto& names = module_.function_names;
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      return out = {StateSpace::kGeneric, function_address(module_, name)}, true;
    }
    return false;
  }

  Operand special(Special s) {
    const bool wide = s == Special::kClock64;
    const auto [it, is_new] = f_->specials.try_emplace(s);
    if (is_new) {
      it->second.narrow = it->second.wide = allocate(wide ? kWideBytes : kNarrowBytes);
      it->second.is_wide = wide;
    }
    return it->second;
  }

  void push(const Operand& o) { f_->operands.push_back(o); }

  void scalar(Instr& instr) {
    const bool negated = in_.accept("!"), minus = in_.accept("-");
    const Token& t = in_.next();
    Operand o;
    Symbol symbol;
    if (t.kind == Token::Kind::kNumber) {
      o = constant(minus ? 0 - t.value : t.value);
    } else if (t.text == "_") {
      o.narrow = o.wide = sink_;
      o.is_constant = true;
    } else if (find_register(t.text, o)) {
      o.negated = negated;
    } else if (const auto s = kSpecials.find(t.text); s != kSpecials.end()) {
      o = special(s->second);
    } else if (t.text == "WARP_SZ") {
      o = constant(kLanes);
    } else if (find_symbol(t.text, symbol)) {
      const u64 addend = in_.accept("+") ? in_.next().value : 0;
      o = constant(symbol.value + addend, symbol.space == StateSpace::kLocal);
    } else {
      fault("PTX: operand '%s' of '%s' in %s", std::string(t.text).c_str(),
            std::string(instr.text).c_str(), f_->name.c_str());
    }
    push(o);
  }

  void address(Instr& instr, i64& offset) {
    const Token& t = in_.next();
    Operand o;
    Symbol symbol;
    if (t.kind == Token::Kind::kNumber) {
      o = constant(t.value);
    } else if (find_symbol(t.text, symbol)) {
      o = constant(symbol.value, symbol.space == StateSpace::kLocal);
      instr.symbol_space = symbol.space;
    } else if (!find_register(t.text, o)) {
      fault("PTX: address '%s' of '%s' in %s", std::string(t.text).c_str(),
            std::string(instr.text).c_str(), f_->name.c_str());
    } else if (!f_->is_kernel) {
      instr.symbol_space = StateSpace::kLocal;  // should this be ld.param
    }
    push(o);
    while (!in_.accept("]")) {
      bool minus = in_.accept("-");
      if (!minus) in_.expect("+");
      minus ^= in_.accept("-");
      const i64 value = static_cast<i64>(in_.next().value);
      offset += minus ? -value : value;
    }
  }

  // ---- statements
  // ----------------------------------------------------------------------------------

  void body() {
    size_t depth = 1;
    while (depth) {
      if (in_.current().kind == Token::Kind::kLocation) {
        place(module_.places[in_.next().value]);
      } else if (in_.accept("{")) {
        ++depth;
        scopes_.push_back({scope_, local_top_, {}, {}, {}});
        scope_ = scopes_.size() - 1;
      } else if (in_.accept("}")) {
        if (--depth) local_top_ = scopes_[scope_].local_top;
        scope_ = scopes_[scope_].parent;
      } else {
        statement();
      }
    }
  }

  // The place a function is inlined at has had a .loc of its own, which says where that is inlined.
  // Line 0 is no line: the one before stays.
  void place(const Place& p) {
    if (p.at[1] == 0) return;
    Location l{p.at[0], p.at[1], 0};
    if (p.inlined_at[1]) {
      const auto [it, is_new] = latest_.try_emplace(p.inlined_at, f_->locations.size());
      if (is_new) f_->locations.push_back({p.inlined_at[0], p.inlined_at[1], 0});
      l.parent = it->second;
    }
    location_ = static_cast<u32>(f_->locations.size());
    latest_[p.at] = location_;
    f_->locations.push_back(l);
  }

  void statement() {
    if (in_.accept(";")) return;
    if (in_.accept(".reg")) return register_declaration();
    if (in_.accept(".shared")) return shared_declaration();
    if (in_.accept(".local") || in_.accept(".param")) return local_declaration();
    if (in_.accept(".pragma")) return pragma();
    if (is_punctuation(in_.ahead(), ":")) return label();
    instruction();
  }

  void pragma() {
    constexpr std::string_view kUsedBytes = "used_bytes_mask ";
    const std::string_view text = in_.next().text;
    if (text.starts_with(kUsedBytes)) {
      const std::string_view value = text.substr(kUsedBytes.size());
      const bool hex = value.starts_with("0x");
      std::from_chars(value.data() + (hex ? 2 : 0), value.data() + value.size(), used_bytes_,
                      hex ? 16 : 10);
    }
    in_.expect(";");
  }

  void label() {
    const std::string_view name = in_.next().text;
    in_.expect(":");
    if (in_.accept(".branchtargets")) {
      auto& targets = tables_[name];
      do targets.push_back({scope_, in_.next().text});
      while (in_.accept(","));
      in_.expect(";");
    } else if (in_.accept(".callprototype") || in_.accept(".calltargets")) {
      in_.skip_past(";");
    } else {
      scopes_[scope_].labels[name] = static_cast<u32>(f_->code.size());
    }
  }

  void instruction() {
    Instr instr;
    instr.location = location_;
    instr.used_bytes = std::exchange(used_bytes_, ~0u);
    if (in_.accept("@")) {
      instr.guard_flip = in_.accept("!") ? ~0u : 0;
      Operand o;
      if (!find_register(in_.next().text, o)) fault("PTX: guard in %s", f_->name.c_str());
      instr.guard = o.narrow;
    }
    instr.text = in_.next().text;
    first_operand_.push_back(f_->operands.size());
    const std::string_view base = instr.text.substr(0, instr.text.find('.'));
    if (base == "bra") {
      branches_.push_back({f_->code.size(), {scope_, in_.next().text}});
    } else if (base == "call") {
      call(instr);
    } else {
      operands(instr, base == "brx");
    }
    in_.expect(";");
    f_->code.push_back(std::move(instr));
  }

  void operands(Instr& instr, bool has_table) {
    const size_t first = f_->operands.size();
    u32 addresses = 0;
    while (!in_.is(";")) {
      if (instr.groups + 1u >= instr.group.size()) {
        fault("PTX: operands of '%s'", std::string(instr.text).c_str());
      }
      instr.group[instr.groups++] = static_cast<u8>(f_->operands.size() - first);
      if (has_table && instr.groups == 2) {
        table_uses_.push_back({f_->code.size(), in_.next().text});
      } else if (in_.accept("{")) {
        while (!in_.accept("}")) {
          scalar(instr);
          in_.accept(",");
        }
      } else if (in_.accept("[")) {
        address(instr, addresses++ ? instr.second_offset : instr.offset);
      } else {
        scalar(instr);
        if (in_.accept("|")) scalar(instr);
      }
      in_.accept(",");
    }
    for (u32 g = instr.groups; g < instr.group.size(); ++g) {
      instr.group[g] = static_cast<u8>(f_->operands.size() - first);
    }
  }

  // call (results), function-or-register, (arguments), prototype
  void call(Instr& instr) {
    CallSite& site = f_->call_sites.emplace_back();
    instr.call = &site;
    f_->calls = true;
    auto list = [&](std::vector<u32>& offsets) {
      while (!in_.accept(")")) {
        Symbol symbol;
        const std::string_view name = in_.next().text;
        if (!find_symbol(name, symbol) || symbol.space != StateSpace::kLocal) {
          fault("PTX: '%s' in a call in %s", std::string(name).c_str(), f_->name.c_str());
        }
        offsets.push_back(static_cast<u32>(symbol.value));
        in_.accept(",");
      }
      in_.accept(",");
    };
    if (in_.accept("(")) list(site.results);
    Operand target;
    const std::string_view name = in_.next().text;
    if (find_register(name, target)) {
      push(target);
      instr.groups = 1;
    } else {
      instr.callee = name;
    }
    in_.accept(",");
    if (in_.accept("(")) list(site.arguments);
    if (!in_.is(";")) in_.next();
  }

  // ---- what is known at the end
  // --------------------------------------------------------------------

  u32 resolve(const Label& label) const {
    for (size_t s = label.scope;; s = scopes_[s].parent) {
      const auto it = scopes_[s].labels.find(label.name);
      if (it != scopes_[s].labels.end()) return it->second;
      if (s == 0) break;
    }
    fault("PTX: label '%s' in %s", std::string(label.name).c_str(), f_->name.c_str());
  }

  void finish() {
    for (const auto& [index, label] : branches_) f_->code[index].target = resolve(label);
    for (const auto& [index, name] : table_uses_) {
      auto& table = f_->tables.emplace_back();
      for (const Label& l : tables_[name]) table.push_back(resolve(l));
      f_->code[index].table = &table;
    }
    for (size_t i = 0; i < f_->code.size(); ++i) {
      f_->code[i].ops = f_->operands.data() + first_operand_[i];
      decode(f_->code[i]);
    }
  }

  Module& module_;
  TokenReader in_;
  std::unique_ptr<Function> f_;
  std::vector<Scope> scopes_;
  size_t scope_ = 0;
  u32 local_top_ = 0, sink_ = 0, location_ = 0, used_bytes_ = ~0u;
  std::map<std::array<u32, 3>, u32> latest_;  // locations by file, line and column
  std::map<std::pair<u64, bool>, u32> constants_;
  std::vector<size_t> first_operand_;
  std::vector<std::pair<size_t, Label>> branches_;
  std::vector<std::pair<size_t, std::string_view>> table_uses_;
  std::unordered_map<std::string_view, std::vector<Label>> tables_;
};

}  // namespace

std::unique_ptr<Function> parse_function(Module& module, size_t first_token, bool is_kernel) {
  return FunctionReader(module, first_token, is_kernel).run();
}

}  // namespace vgpu
