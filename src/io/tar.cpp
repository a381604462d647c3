#include "io/tar.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "core/printable.h"

namespace uvit {
namespace {

using Block = std::array<char, kTarBlock>;

// Fields of a header: position and length in bytes.
struct Field {
  std::size_t at, length;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kUser{108, 8}, kGroup{116, 8}, kSize{124, 12}, kTime{136, 12}, kChecksum{148, 8}, kMagic{257, 8},
    kPrefix{345, 155};
constexpr std::size_t kType = 156;
constexpr std::uint64_t kLargestMember = std::uint64_t{1} << 62, kLongestName = 1 << 20;

std::string_view text_of(const Block& block, Field field) {
  const std::string_view all(block.data() + field.at, field.length);
  return all.substr(0, std::min(all.find('\0'), all.size()));
}

/// Octal digits between spaces, or base 256 where the first bit is set (GNU). Nothing where it is neither.
std::optional<std::uint64_t> number_of(const Block& block, Field field) {
  const char* begin = block.data() + field.at;
  std::uint64_t value = 0;
  if (static_cast<unsigned char>(begin[0]) & 0x80) {
    value = static_cast<unsigned char>(begin[0]) & 0x7F;
    for (std::size_t i = 1; i < field.length; ++i) {
      if (value >> 54) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(begin[i]);
    }
    return value;
  }
  std::string_view digits = text_of(block, field);
  while (digits.starts_with(' ')) digits.remove_prefix(1);
  while (digits.ends_with(' ')) digits.remove_suffix(1);
  if (digits.empty()) return 0;
  const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 8);
  if (code != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

/// Sum of the header's bytes, its checksum counted as spaces.
std::uint64_t checksum_of(const Block& block) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < block.size(); ++i)
    sum += i >= kChecksum.at && i < kChecksum.at + kChecksum.length ? static_cast<unsigned char>(' ') : static_cast<unsigned char>(block[i]);
  return sum;
}

bool is_zero(const Block& block) {
  return std::all_of(block.begin(), block.end(), [](char c) { return c == 0; });
}

Block block_at(const InputFile& file, std::uint64_t at) {
  Block block;
  file.read(std::as_writable_bytes(std::span(block)), at);
  return block;
}

std::string name_of(const Block& block) {
  const std::string name(text_of(block, kName));
  // GNU's older format keeps other things where ustar has the prefix.
  if (text_of(block, kMagic) != "ustar" || text_of(block, kPrefix).empty()) return name;
  return std::string(text_of(block, kPrefix)) + "/" + name;
}

std::uint64_t padded(std::uint64_t size) { return (size + kTarBlock - 1) / kTarBlock * kTarBlock; }

/// What pax headers and GNU's long names say of the member that follows them.
struct Override {
  std::optional<std::string> name;
  std::optional<std::uint64_t> size;
};

/// Records "LENGTH KEY=VALUE\n"; LENGTH counts the whole record. @return false where it is damaged
bool read_pax(std::string_view text, Override& said) {
  while (!text.empty()) {
    std::uint64_t length = 0;
    const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), length);
    const auto digits = static_cast<std::size_t>(end - text.data());
    if (code != std::errc() || digits == 0 || length > text.size() || length < digits + 3 || text[digits] != ' ' || text[length - 1] != '\n') return false;
    const std::string_view record = text.substr(digits + 1, length - digits - 2);
    const std::size_t equals = record.find('=');
    if (equals == std::string_view::npos) return false;
    const std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "path") said.name = std::string(value);
    if (key == "size") {
      std::uint64_t size = 0;
      const auto [stop, wrong] = std::from_chars(value.data(), value.data() + value.size(), size);
      if (wrong != std::errc() || stop != value.data() + value.size()) return false;
      said.size = size;
    }
    text.remove_prefix(length);
  }
  return true;
}

class Lister {
 public:
  explicit Lister(const std::filesystem::path& path) : path_(path), file_(path) {}

  std::vector<TarMember> list() {
    std::vector<TarMember> members;
    Override said;
    for (std::uint64_t at = 0;; at += kTarBlock) {
      if (at + kTarBlock > file_.size()) throw cut(at + 2 * kTarBlock);
      const Block block = block_at(file_, at);
      if (is_zero(block)) return members;
      if (number_of(block, kChecksum) != checksum_of(block)) throw damaged(at, "it is no tar header");
      const char type = block[kType];
      std::optional<std::uint64_t> size = number_of(block, kSize);
      const bool extension = type == 'x' || type == 'g' || type == 'L' || type == 'K';
      if (!extension && said.size) size = said.size;
      if (!size || *size > kLargestMember) throw damaged(at, "its tar header has no size");
      const std::uint64_t data = at + kTarBlock;
      if (data + padded(*size) > file_.size()) throw cut(data + padded(*size));
      if (extension) {
        read_extension(type, data, *size, said);
      } else {
        if (type == '0' || type == '\0' || type == '7') members.push_back({said.name.value_or(name_of(block)), data, *size});
        said = {};
      }
      at += padded(*size);
    }
  }

 private:
  void read_extension(char type, std::uint64_t at, std::uint64_t size, Override& said) const {
    if (type != 'x' && type != 'L') return;
    if (size > kLongestName) throw damaged(at - kTarBlock, fmt::format("its name has {} bytes", size));
    std::string text(size, '\0');
    file_.read(std::as_writable_bytes(std::span(text)), at);
    if (type == 'L')
      said.name = text.substr(0, text.find('\0'));
    else if (!read_pax(text, said))
      throw damaged(at - kTarBlock, "its pax header is malformed");
  }
  Error damaged(std::uint64_t at, const std::string& what) const {
    return Error(fmt::format("{} is damaged at byte {}: {}; copy it again", path_.string(), at, what));
  }
  Error cut(std::uint64_t expected) const {
    return Error(fmt::format("{} is truncated: expected {} bytes or more, found {}; copy it again", path_.string(), expected, file_.size()));
  }

  const std::filesystem::path& path_;
  InputFile file_;
};

Block to_block(std::span<const std::byte> bytes) {
  Block block{};
  std::memcpy(block.data(), bytes.data(), std::min(bytes.size(), block.size()));
  return block;
}

void put(Block& block, Field field, std::string_view text) { std::memcpy(block.data() + field.at, text.data(), std::min(text.size(), field.length)); }

}  // namespace

std::vector<TarMember> list_tar(const std::filesystem::path& path) { return Lister(path).list(); }

std::string tar_header_damage(std::span<const std::byte> bytes, std::uint64_t size) {
  const Block block = to_block(bytes);
  if (is_zero(block) || number_of(block, kChecksum) != checksum_of(block)) return "there is no tar header";
  if (number_of(block, kSize) != size) return fmt::format("its tar header says {} bytes, not {}", number_of(block, kSize).value_or(0), size);
  return "";
}

std::string tar_member_name(std::span<const std::byte> block) { return printable(name_of(to_block(block))); }

TarMember TarWriter::add(const std::string& name, std::span<const std::byte> bytes) {
  constexpr std::uint64_t kMostOctal = std::uint64_t{1} << 33;  // eleven octal digits
  if (name.empty() || name.size() > kName.length || bytes.size() >= kMostOctal)
    throw Error(fmt::format("a member '{}' of {} bytes does not fit a tar header", printable(name), bytes.size()));
  Block block{};
  put(block, kName, name);
  put(block, kMode, "0000644");
  put(block, kUser, "0000000");
  put(block, kGroup, "0000000");
  put(block, kSize, fmt::format("{:011o}", bytes.size()));
  put(block, kTime, "00000000000");
  put(block, kMagic, std::string_view("ustar\00000", 8));
  block[kType] = '0';
  put(block, kChecksum, fmt::format("{:06o}", checksum_of(block)) + std::string("\0 ", 2));
  write(std::as_bytes(std::span(block)));
  const TarMember member{name, size_, bytes.size()};
  write(bytes);
  const Block zeros{};
  write(std::as_bytes(std::span(zeros)).first(padded(bytes.size()) - bytes.size()));
  return member;
}

void TarWriter::write(std::span<const std::byte> bytes) {
  file_.write(bytes);
  size_ += bytes.size();
}

void TarWriter::finish() {
  const std::array<char, 2 * kTarBlock> zeros{};
  write(std::as_bytes(std::span(zeros)));
  file_.close();
}

}  // namespace uvit
