#include "config/config.h"

#include <fmt/format.h>

#include <optional>
#include <sstream>
#include <toml++/toml.h>

#include "config/keys.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/name_table.h"
#include "core/printable.h"

namespace uvit {
namespace {

std::string_view type_of(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string: return "a string";
    case toml::node_type::integer: return "an integer";
    case toml::node_type::floating_point: return "a number with a point or exponent";
    case toml::node_type::boolean: return "true or false";
    case toml::node_type::array: return "a list";
    case toml::node_type::table: return "a table";
    default: return "a date or time";
  }
}

[[noreturn]] void throw_type(std::string_view wanted, const toml::node& node) { throw Error(fmt::format("wants {}, not {}", wanted, type_of(node))); }

// One overload a type of field. Only whole numbers widen (to double); nothing is ever rounded or read from a string.

void assign(bool& field, const toml::node& node) {
  if (!node.is_boolean()) throw_type("true or false", node);
  field = node.as_boolean()->get();
}

void assign(std::int64_t& field, const toml::node& node) {
  if (!node.is_integer()) throw_type("an integer", node);
  field = node.as_integer()->get();
}

void assign(std::uint64_t& field, const toml::node& node) {
  std::int64_t value = 0;
  assign(value, node);
  if (value < 0) throw Error("must be >= 0");
  field = static_cast<std::uint64_t>(value);
}

void assign(double& field, const toml::node& node) {
  if (node.is_integer())
    field = static_cast<double>(node.as_integer()->get());
  else if (node.is_floating_point())
    field = node.as_floating_point()->get();
  else
    throw_type("a number", node);
}

void assign(std::string& field, const toml::node& node) {
  if (!node.is_string()) throw_type("a string", node);
  field = node.as_string()->get();
}

template <class T>
void assign(std::vector<T>& field, const toml::node& node) {
  std::vector<T> values;
  if (const toml::array* list = node.as_array()) {
    for (const toml::node& element : *list) assign(values.emplace_back(), element);
  } else {
    assign(values.emplace_back(), node);
  }
  field = std::move(values);
}

template <class T>
void assign(std::array<T, 2>& field, const toml::node& node) {
  const toml::array* list = node.as_array();
  if (!list || list->size() != 2) throw Error("wants a list of two numbers");
  for (std::size_t i = 0; i < 2; ++i) assign(field[i], *list->get(i));
}

void assign_key(const ConfigKey& key, Config& config, const toml::node& node) {
  try {
    std::visit([&](auto* field) { assign(*field, node); }, key.field(config));
  } catch (const Error& error) {
    throw Error(fmt::format("{} {}", key.full_name(), error.what()));
  }
  check_range(key, config);
}

std::vector<std::string> section_names() {
  std::vector<std::string> names;
  for (const ConfigKey& key : config_keys())
    if (names.empty() || names.back() != key.section) names.emplace_back(key.section);
  return names;
}

bool is_section(std::string_view name) {
  for (const ConfigKey& key : config_keys())
    if (key.section == name) return true;
  return false;
}

/// A key of that name in another section: the commonest slip after a typing error.
const ConfigKey* in_any_section(std::string_view name) {
  for (const ConfigKey& key : config_keys())
    if (key.name == name) return &key;
  return nullptr;
}

[[noreturn]] void throw_unknown_section(std::string_view section) {
  if (const ConfigKey* key = in_any_section(section))
    throw Error(fmt::format("'{}' belongs in a section: did you mean {}?", section, key->full_name()));
  throw_unknown_name("section", section, section_names());
}

[[noreturn]] void throw_unknown_key(std::string_view section, std::string_view name) {
  std::vector<std::string> names;
  for (const ConfigKey& key : config_keys())
    if (key.section == section) names.emplace_back(key.name);
  const ConfigKey* elsewhere = in_any_section(name);
  if (elsewhere && nearest_name(name, names).empty())
    throw Error(fmt::format("unknown key '{}.{}': did you mean {}?", section, name, elsewhere->full_name()));
  throw_unknown_name(fmt::format("key of [{}]", section), name, names);
}

const ConfigKey& require_key(std::string_view section, std::string_view name) {
  if (!is_section(section)) throw_unknown_section(section);
  const ConfigKey* key = find_config_key(section, name);
  if (!key) throw_unknown_key(section, name);
  return *key;
}

/// Calls `body` and puts "ORIGIN:LINE: " before the message of an Error.
template <class Body>
void with_line(const std::string& origin, const toml::source_region& source, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    throw Error(fmt::format("{}:{}: {}", origin, source.begin.line, error.what()));
  }
}

toml::table parse_toml(const std::string& text, const std::string& origin) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw Error(fmt::format("{}:{}: not valid TOML: {}", origin, error.source().begin.line, error.description()));
  }
}

void apply_table(const toml::table& table, const std::string& origin, Config& config) {
  for (const auto& [section, content] : table) {
    with_line(origin, section.source(), [&, &section = section, &content = content] {
      if (!is_section(section)) throw_unknown_section(section);
      if (!content.is_table()) throw Error(fmt::format("'{}' is a section: write [{}] and its keys below", section.str(), section.str()));
    });
    for (const auto& [name, value] : *content.as_table())
      with_line(origin, name.source(),
                [&, &section = section, &name = name, &value = value] { assign_key(require_key(section, name), config, value); });
  }
}

/// The value of "v = TEXT", or nothing where TEXT is no TOML value.
std::optional<toml::table> parse_value(const std::string& text) {
  try {
    toml::table table = toml::parse("v = " + text);
    if (table.size() == 1) return table;
  } catch (const toml::parse_error&) {
  }
  return std::nullopt;
}

/// A value of the command line: TOML, or a bare word, or a list of bare words, which shells make hard to quote.
toml::table override_value(const std::string& text) {
  if (std::optional<toml::table> table = parse_value(text)) return *std::move(table);
  toml::table result;
  if (text.size() < 2 || text.front() != '[' || text.back() != ']') {
    result.insert("v", text);
    return result;
  }
  toml::array list;
  std::istringstream stream(text.substr(1, text.size() - 2));
  for (std::string word; std::getline(stream, word, ',');) {
    const std::size_t first = word.find_first_not_of(' '), last = word.find_last_not_of(' ');
    word = first == std::string::npos ? "" : word.substr(first, last - first + 1);
    if (const std::optional<toml::table> value = parse_value(word))
      list.push_back(*value->get("v"));
    else
      list.push_back(word);
  }
  result.insert("v", std::move(list));
  return result;
}

void apply_override(const std::string& text, Config& config) {
  try {
    const std::size_t equals = text.find('='), point = text.find('.');
    if (equals == std::string::npos || point == std::string::npos || point > equals) throw Error("write section.key=value");
    const ConfigKey& key = require_key(text.substr(0, point), text.substr(point + 1, equals - point - 1));
    const std::string value = text.substr(equals + 1);
    const toml::table parsed = override_value(value);
    const toml::node& node = *parsed.get("v");
    const bool wants_string = std::holds_alternative<std::string*>(key.field(config));
    if (wants_string && !node.is_string())
      assign_key(key, config, toml::value<std::string>(value));  // a folder may be called 2024
    else
      assign_key(key, config, node);
  } catch (const Error& error) {
    throw Error(fmt::format("--set {}: {}", text, error.what()));
  }
}

void validate_of(const std::string& origin, const Config& config) {
  try {
    validate(config);
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", origin, error.what()));
  }
}

}  // namespace

Config load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  return parse_config(read_file(path), path.string(), overrides);
}

Config parse_config(const std::string& text, const std::string& origin, const std::vector<std::string>& overrides) {
  try {
    Config config;
    apply_table(parse_toml(text, origin), origin, config);
    for (const std::string& text_of_override : overrides) apply_override(text_of_override, config);
    validate_of(origin, config);
    return config;
  } catch (const Error& error) {
    throw Error(printable(error.what()));  // names and values of the file may hold line breaks
  }
}

std::string to_toml(const Config& config) {
  std::string text;
  std::string_view section;
  for (const ConfigKey& key : config_keys()) {
    if (key.section != section) text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", key.section);
    section = key.section;
    text += fmt::format("{} = {}\n", key.name, format_field(key, config));
  }
  return text;
}

std::string describe_keys() {
  const Config defaults;
  std::string text;
  for (const ConfigKey& key : config_keys()) text += fmt::format("{}  ({})  {}\n", key.full_name(), format_field(key, defaults), key.doc);
  return text;
}

}  // namespace uvit
