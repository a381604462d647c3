#pragma once
#include <nlohmann/json.hpp>

namespace uvit {

/// The field `key` of an object, or `fallback` where there is none or one of another type: logs may have been edited.
template <class T, class Json>
T value_or(const Json& object, const char* key, T fallback) {
  const auto field = object.find(key);
  if (field == object.end()) return fallback;
  try {
    return field->template get<T>();
  } catch (const nlohmann::json::exception&) {
    return fallback;
  }
}

}  // namespace uvit
