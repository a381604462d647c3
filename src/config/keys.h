#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "config/config.h"

namespace uvit {

/// Where the value of a key lies in a Config.
using ConfigField = std::variant<std::int64_t*, std::uint64_t*, double*, bool*, std::string*, std::vector<std::int64_t>*, std::vector<double>*,
                                 std::vector<std::string>*, std::array<double, 2>*, std::array<std::int64_t, 2>*>;

/// The numbers that a key takes, each element of a list alike. NaN is in no range.
struct ConfigRange {
  double low = -std::numeric_limits<double>::max(), high = std::numeric_limits<double>::max();
  bool below_high = false;              ///< `high` itself is out
  bool above_low = false;               ///< `low` itself is out
  std::vector<std::string> words = {};  ///< the strings that a string key takes; empty: any
};

/// One key of the TOML file. The table of them is the only place that knows keys: reading, overriding, checking, printing and describing run over it.
struct ConfigKey {
  std::string_view section, name;
  ConfigField (*field)(Config&);
  ConfigRange range;
  std::string_view doc;

  std::string full_name() const;
};

std::span<const ConfigKey> config_keys();

/// The key, or null.
const ConfigKey* find_config_key(std::string_view section, std::string_view name);

/// Throws Error "section.key = VALUE: ..." where the field's value is out of the key's range.
void check_range(const ConfigKey& key, const Config& config);

/// The field's value as TOML.
std::string format_field(const ConfigKey& key, const Config& config);

}  // namespace uvit
