#pragma once
#include <unicode/unistr.h>

#include <string_view>

namespace uvit {

/// Text as CLIP's tokenizer wants it: repaired as ftfy repairs it (curly quotes made straight, ligatures taken apart, full-width forms narrowed, control
/// characters and terminal escapes removed, composed to NFC), HTML entities decoded twice, white space folded to single blanks, lower-cased.
/// Two things of ftfy are left out: text decoded with the wrong encoding stays as it is, and of HTML's names those of HTML 4 are known.
/// Bytes that are no UTF-8 become U+FFFD.
icu::UnicodeString clean_text(std::string_view utf8);

/// HTML character references replaced once, as Python's html.unescape does: "&lt;", "&eacute", "&#233;", "&#xe9".
/// @param strict  only those that end with a semicolon
icu::UnicodeString unescape_html(const icu::UnicodeString& text, bool strict = false);

/// White space as Python's str.split sees it.
bool is_space(char32_t c);

}  // namespace uvit
