#pragma once
// Structs of options as JSON objects, enumerations as names, and checked fields of JSON objects. An
// options struct is described by a function `for_each_field(options, field)` that calls
// `field(name, member)` for every member.
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>

#include "tensor/error.h"

namespace centroid::audio {

/// The name of `value` in a table of all values; throws when it is not there.
template <typename E, size_t n>
std::string find_name(const std::pair<E, const char*> (&table)[n], E value, const char* what) {
  for (const auto& [known, name] : table) {
    if (known == value) return name;
  }
  throw Error(concat(what, ": no value of this type"));
}

/// The value of that name; throws listing the valid names.
template <typename E, size_t n>
E find_value(const std::pair<E, const char*> (&table)[n], const std::string& name,
             const char* what) {
  std::string names;
  for (size_t i = 0; i < n; ++i) {
    if (name == table[i].second) return table[i].first;
    names += concat(i == 0 ? "" : i + 1 < n ? ", " : " or ", table[i].second);
  }
  throw Error(concat(what, ": expected ", names, ", got ", name));
}

/// Reads options, starting from their defaults. Throws on unknown keys and wrong types; `what`
/// begins the message.
template <typename Options, typename Fields>
void read_fields(const nlohmann::json& json, Options& options, const Fields& fields,
                 const char* what) {
  CENTROID_CHECK(json.is_object(), what, ": expected a JSON object, got ", json.dump());
  options = {};
  std::set<std::string> known;
  fields(options, [&](const char* name, auto& value) {
    known.insert(name);
    if (!json.contains(name)) return;
    const nlohmann::json& given = json.at(name);
    try {
      if constexpr (std::is_same_v<decltype(value), int&>) {
        CENTROID_CHECK(given.is_number_integer(), "expected an integer");
      }
      given.get_to(value);
    } catch (const std::exception& error) {
      throw Error(concat(what, ": ", name, ": got ", given.dump(), ": ", error.what()));
    }
  });
  for (const auto& [key, value] : json.items()) {
    CENTROID_CHECK(known.contains(key), what, ": unknown key ", key);
  }
}

/// Options as an object with the member names as keys.
template <typename Options, typename Fields>
nlohmann::json write_fields(const Options& options, const Fields& fields) {
  nlohmann::json json = nlohmann::json::object();
  fields(options, [&](const char* name, const auto& value) { json[name] = value; });
  return json;
}

/// The string under `key`; empty when it is missing or null. Throws for other types and for NUL
/// characters.
inline std::string string_of(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return "";
  CENTROID_CHECK(it->is_string(), key, ": expected a string, got ", it->dump());
  std::string value = it->get<std::string>();
  CENTROID_CHECK(value.find('\0') == value.npos, key, ": expected text, got a NUL character");
  return value;
}

/// The seconds under `key`; 0 when they are missing or null. Throws unless they are finite and not
/// negative.
inline double seconds_of(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return 0;
  CENTROID_CHECK(it->is_number(), key, ": expected seconds, got ", it->dump());
  const double value = it->get<double>();
  CENTROID_CHECK(std::isfinite(value) && value >= 0, key, ": expected seconds >= 0, got ", value);
  return value;
}

}  // namespace centroid::audio
