#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <type_traits>

namespace uvit {

/// The whole number object[key]. Throws nlohmann's out_of_range or type_error where there is none: get<> would turn any number into an integer, a large
/// one with undefined behaviour.
template <class Json>
std::int64_t integer_at(const Json& object, const char* key) {
  return object.at(key).template get_ref<const typename Json::number_integer_t&>();
}

/// The field `key` of an object, or `fallback` where there is none or one of another type: a file may have been edited.
template <class T, class Json>
T value_or(const Json& object, const char* key, T fallback) {
  const auto field = object.find(key);
  if (field == object.end()) return fallback;
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if (!field->is_number_integer()) return fallback;
  }
  try {
    return field->template get<T>();
  } catch (const nlohmann::json::exception&) {
    return fallback;
  }
}

}  // namespace uvit
