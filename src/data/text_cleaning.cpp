#include "data/text_cleaning.h"

#include <unicode/locid.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>

#include <functional>
#include <map>

#include "core/error.h"
#include "data/html_entities.h"

namespace uvit {
namespace {

using icu::UnicodeString;

/// Calls `visit` with every code point.
void for_each(const UnicodeString& text, const std::function<void(char32_t)>& visit) {
  for (std::int32_t i = 0; i < text.length(); i = text.moveIndex32(i, 1)) visit(static_cast<char32_t>(text.char32At(i)));
}

void append(UnicodeString& text, char32_t c) { text.append(static_cast<UChar32>(c)); }

bool is_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }

/// Without "ESC [ numbers letter".
UnicodeString remove_terminal_escapes(const UnicodeString& text) {
  UnicodeString result;
  for (std::int32_t i = 0; i < text.length(); ++i) {
    if (text[i] == 0x1b && i + 1 < text.length() && text[i + 1] == '[') {
      std::int32_t end = i + 2;
      while (end < text.length() && (is_digit(text[end]) || text[end] == ';')) ++end;
      if (end < text.length() && is_letter(text[end])) {
        i = end;
        continue;
      }
    }
    result.append(text[i]);
  }
  return result;
}

/// What Windows-1252 has at 0x80 to 0x9f, where Unicode has control characters; 0 where it has none either.
constexpr char16_t kWindows1252[32] = {0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
                                       0x2039, 0x0152, 0,      0x017d, 0,      0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
                                       0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178};

/// The letters that a ligature or digraph of Latin script stands for; null for anything else.
const char16_t* latin_ligature(char32_t c) {
  static const std::map<char32_t, const char16_t*> ligatures = {
      {0x132, u"IJ"}, {0x133, u"ij"}, {0x149, u"\u02bcn"}, {0x1c4, u"D\u017d"}, {0x1c5, u"D\u017e"}, {0x1c6, u"d\u017e"}, {0x1c7, u"LJ"},
      {0x1c8, u"Lj"}, {0x1c9, u"lj"}, {0x1ca, u"NJ"},      {0x1cb, u"Nj"},      {0x1cc, u"nj"},      {0x1f1, u"DZ"},      {0x1f2, u"Dz"},
      {0x1f3, u"dz"}, {0xfb00, u"ff"}, {0xfb01, u"fi"},    {0xfb02, u"fl"},     {0xfb03, u"ffi"},    {0xfb04, u"ffl"},    {0xfb05, u"\u017ft"},
      {0xfb06, u"st"}};
  const auto found = ligatures.find(c);
  return found == ligatures.end() ? nullptr : found->second;
}

bool is_removed_control(char32_t c) {
  return c < 0x09 || c == 0x0b || (c >= 0x0e && c < 0x20) || c == 0x7f || (c >= 0x206a && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffc);
}

const icu::Normalizer2& normalizer(bool compatible) {
  UErrorCode code = U_ZERO_ERROR;
  const icu::Normalizer2* found = compatible ? icu::Normalizer2::getNFKCInstance(code) : icu::Normalizer2::getNFCInstance(code);
  if (U_FAILURE(code)) throw Error("the ICU library has no normalisation data: install it whole");
  return *found;
}

UnicodeString normalize(const UnicodeString& text, bool compatible) {
  UErrorCode code = U_ZERO_ERROR;
  UnicodeString result = normalizer(compatible).normalize(text, code);
  return U_FAILURE(code) ? text : result;
}

/// One code point as ftfy repairs it, before control characters go and the text is composed.
UnicodeString repaired(char32_t c) {
  if (c >= 0x80 && c <= 0x9f && kWindows1252[c - 0x80] != 0) c = kWindows1252[c - 0x80];
  if (const char16_t* letters = latin_ligature(c)) return letters[0] == u'\u02bc' ? UnicodeString(u"'n") : UnicodeString(letters);
  if (c == 0x3000) return u" ";
  if (c >= 0xff01 && c <= 0xffef) return normalize(UnicodeString(static_cast<UChar32>(c)), true);
  if (c == 0x02bc || (c >= 0x2018 && c <= 0x201b)) return u"'";
  if (c >= 0x201c && c <= 0x201f) return u"\"";
  if (c == '\r' || c == 0x2028 || c == 0x2029) return u"\n";
  if (is_removed_control(c)) return {};
  return UnicodeString(static_cast<UChar32>(c));
}

UnicodeString fold_spaces(const UnicodeString& text) {
  UnicodeString result;
  bool pending = false;
  for_each(text, [&](char32_t c) {
    if (is_space(c)) {
      pending = !result.isEmpty();
      return;
    }
    if (pending) result.append(u' ');
    pending = false;
    append(result, c);
  });
  return result;
}

/// Value of "&#..." at `at`, with what it is replaced by; `end` behind it. False where no number stands there.
bool numeric_reference(const UnicodeString& text, std::int32_t at, bool strict, std::int32_t& end, UnicodeString& value) {
  end = at + 2;
  const bool hex = end < text.length() && (text[end] == 'x' || text[end] == 'X');
  if (hex) ++end;
  std::uint32_t number = 0;
  const std::int32_t first = end;
  for (; end < text.length(); ++end) {
    const std::int32_t digit = u_digit(text[end], hex ? 16 : 10);
    if (digit < 0 || text[end] > 0x7f) break;
    number = number > 0x110000 ? number : number * (hex ? 16 : 10) + static_cast<std::uint32_t>(digit);
  }
  if (end == first) return false;
  const bool closed = end < text.length() && text[end] == ';';
  if (strict && !closed) return false;
  if (closed) ++end;
  if (number >= 0x80 && number <= 0x9f && kWindows1252[number - 0x80] != 0) {
    value = UnicodeString(kWindows1252[number - 0x80]);
  } else if (number == 0 || number > 0x10ffff || (number >= 0xd800 && number <= 0xdfff)) {
    value = UnicodeString(static_cast<UChar32>(0xfffd));
  } else if ((number < 0x20 && number != '\t' && number != '\n' && number != '\f' && number != '\r') || number == 0x7f || (number & 0xfffe) == 0xfffe ||
             (number >= 0xfdd0 && number <= 0xfdef) || number == 0x0b) {
    value.remove();  // HTML forbids these, and Python drops them
  } else {
    value = UnicodeString(static_cast<UChar32>(number));
  }
  return true;
}

/// "&name;", or the longest known name at the start of "&name..." among those that may do without the semicolon.
bool named_reference(const UnicodeString& text, std::int32_t at, bool strict, std::int32_t& end, UnicodeString& value) {
  constexpr std::int32_t kLongest = 32;
  std::string name;
  end = at + 1;
  while (end < text.length() && static_cast<std::int32_t>(name.size()) < kLongest && (is_letter(text[end]) || is_digit(text[end])))
    name += static_cast<char>(text[end++]);
  const bool closed = end < text.length() && text[end] == ';';
  if (closed) {
    if (const HtmlEntity* entity = find_html_entity(name)) {
      ++end;
      value = UnicodeString(static_cast<UChar32>(entity->character));
      return true;
    }
  }
  for (; !strict && name.size() > 1; name.pop_back(), --end) {
    const HtmlEntity* entity = find_html_entity(name);
    if (!entity || !entity->without_semicolon) continue;
    value = UnicodeString(static_cast<UChar32>(entity->character));
    return true;
  }
  return false;
}

}  // namespace

bool is_space(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)) || (c >= 0x1c && c <= 0x1f); }

icu::UnicodeString unescape_html(const icu::UnicodeString& text, bool strict) {
  UnicodeString result;
  for (std::int32_t i = 0; i < text.length();) {
    std::int32_t end = i + 1;
    UnicodeString value;
    const bool numeric = text[i] == '&' && end < text.length() && text[end] == '#';
    if (text[i] == '&' && (numeric ? numeric_reference(text, i, strict, end, value) : named_reference(text, i, strict, end, value))) {
      result.append(value);
      i = end;
    } else {
      result.append(text[i++]);
    }
  }
  return result;
}

icu::UnicodeString clean_text(std::string_view utf8) {
  constexpr int kRounds = 16;  // a repair can uncover another; each round takes an escape away, so a text that people write is done in three
  UnicodeString text = UnicodeString::fromUTF8(icu::StringPiece(utf8.data(), static_cast<std::int32_t>(utf8.size())));
  for (int round = 0; round < kRounds; ++round) {
    // Text with a "<" may be HTML itself, whose references say what is no markup: ftfy leaves them alone.
    const UnicodeString before = text, escaped = text.indexOf(u'<') < 0 ? unescape_html(text, true) : text;
    text.remove();
    for_each(remove_terminal_escapes(escaped), [&](char32_t c) { text.append(repaired(c)); });
    text = normalize(text, false);
    if (text == before) break;
  }
  text = unescape_html(unescape_html(text));
  return fold_spaces(text).toLower(icu::Locale::getRoot());
}

}  // namespace uvit
