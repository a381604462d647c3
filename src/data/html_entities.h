#pragma once
#include <string_view>

namespace uvit {

/// A character reference of HTML 4: "eacute" -> U+00E9.
struct HtmlEntity {
  std::string_view name;
  char32_t character;
  bool without_semicolon;  ///< browsers, and Python's html.unescape, also take it without ";"
};

/// The entity called `name` (no "&", no ";"), or null.
const HtmlEntity* find_html_entity(std::string_view name);

}  // namespace uvit
