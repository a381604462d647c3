#include "io/npz.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <string_view>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/printable.h"
#include "io/zip_archive.h"

namespace uvit {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::string_view kExtension = ".npy";

struct DescrRow {
  std::string_view descr;
  DType dtype;
};
constexpr std::array kDescrs = {DescrRow{"<f8", DType::f64}, DescrRow{"<f4", DType::f32}, DescrRow{"<f2", DType::f16},
                                DescrRow{"<i8", DType::i64}, DescrRow{"<i4", DType::i32}, DescrRow{"<i2", DType::i16},
                                DescrRow{"|i1", DType::i8},  DescrRow{"|u1", DType::u8},  DescrRow{"|b1", DType::boolean}};

DType dtype_of(std::string_view descr) {
  for (const DescrRow& row : kDescrs)
    if (row.descr == descr) return row.dtype;
  if (descr.starts_with("|O")) throw Error("it holds pickled Python objects, which are not read");
  throw Error(fmt::format("numbers of kind '{}' are not read", descr));
}

std::string_view descr_of(DType dtype) {
  for (const DescrRow& row : kDescrs)
    if (row.dtype == dtype) return row.descr;
  throw Error(fmt::format("NumPy has no {}", name_of(dtype)));
}

struct Header {
  DType dtype = DType::f32;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

/// Parser of the header of a .npy file, a Python dict literal: {'descr': '<f8', 'fortran_order': False, 'shape': (64, 64), }
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  Header parse() {
    Header header;
    bool has_descr = false, has_order = false, has_shape = false;
    take("{");
    while (!accept("}")) {
      const std::string_view key = string();
      take(":");
      if (key == "descr") {
        has_descr = true;
        if (!text_.starts_with('\'')) throw Error("structured arrays are not read");
        header.dtype = dtype_of(string());
      } else if (key == "fortran_order") {
        has_order = true;
        header.fortran_order = accept("True");
        if (!header.fortran_order) take("False");
      } else if (key == "shape") {
        has_shape = true;
        header.shape = shape();
      } else {
        throw malformed();
      }
      if (!accept(",") && !text_.starts_with('}')) throw malformed();
    }
    if (!has_descr || !has_order || !has_shape) throw malformed();
    return header;
  }

 private:
  static Error malformed() { return Error("its .npy header is malformed"); }

  void skip_spaces() { text_.remove_prefix(std::min(text_.find_first_not_of(" \n"), text_.size())); }
  bool accept(std::string_view token) {
    skip_spaces();
    if (!text_.starts_with(token)) return false;
    text_.remove_prefix(token.size());
    skip_spaces();
    return true;
  }
  void take(std::string_view token) {
    if (!accept(token)) throw malformed();
  }
  std::string_view string() {
    if (!text_.starts_with('\'')) throw malformed();
    const std::size_t end = text_.find('\'', 1);
    if (end == std::string_view::npos) throw malformed();
    const std::string_view value = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    skip_spaces();
    return value;
  }
  std::vector<std::int64_t> shape() {
    std::vector<std::int64_t> sides;
    take("(");
    while (!accept(")")) {
      std::int64_t side = -1;
      const auto [end, code] = std::from_chars(text_.data(), text_.data() + text_.size(), side);
      if (code != std::errc() || side < 0 || sides.size() == 64) throw malformed();
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      sides.push_back(side);
      if (!accept(",") && !text_.starts_with(')')) throw malformed();
    }
    return sides;
  }
  std::string_view text_;
};

/// Column-major to row-major.
std::vector<std::byte> to_row_major(const std::vector<std::int64_t>& shape, std::size_t element, std::span<const std::byte> source) {
  std::vector<std::byte> out(source.size());
  std::vector<std::int64_t> index(shape.size(), 0);
  std::vector<std::size_t> strides(shape.size(), element);
  for (std::size_t i = 1; i < shape.size(); ++i) strides[i] = strides[i - 1] * static_cast<std::size_t>(shape[i - 1]);
  std::size_t at = 0;
  for (std::size_t done = 0; done < out.size(); done += element) {
    std::memcpy(out.data() + done, source.data() + at, element);
    for (std::size_t i = shape.size(); i-- > 0;) {
      at += strides[i];
      if (++index[i] < shape[i]) break;
      at -= strides[i] * static_cast<std::size_t>(shape[i]);
      index[i] = 0;
    }
  }
  return out;
}

HostTensor parse_npy(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto number = [&](std::size_t at, std::size_t width) {
    std::uint64_t value = 0;
    if (text.size() < at + width) throw Error("it is truncated");
    std::memcpy(&value, text.data() + at, width);
    return value;
  };
  if (!text.starts_with(kMagic)) throw Error("it is no .npy array");
  const std::uint64_t version = number(6, 1);
  if (version < 1 || version > 3) throw Error(fmt::format("version {} of the .npy format is not read", version));
  const std::size_t length_bytes = version == 1 ? 2 : 4, start = 8 + length_bytes;
  const std::uint64_t length = number(8, length_bytes);
  if (text.size() - start < length) throw Error("it is truncated");
  const Header header = HeaderParser(text.substr(start, length)).parse();
  const std::span<const std::byte> data = bytes.subspan(start + length);
  if (byte_size(header.dtype, header.shape) != data.size())
    throw Error(fmt::format("{} bytes are no {} of shape {}", data.size(), name_of(header.dtype), format_shape(header.shape)));
  HostTensor tensor{header.dtype, header.shape, {}};
  if (header.fortran_order)
    tensor.data = to_row_major(header.shape, size_of(header.dtype), data);
  else
    tensor.data.assign(data.begin(), data.end());
  return tensor;
}

std::string make_npy(const HostTensor& tensor) {
  if (byte_size(tensor.dtype, tensor.shape) != tensor.data.size())
    throw Error(fmt::format("{} bytes are no {} of shape {}", tensor.data.size(), name_of(tensor.dtype), format_shape(tensor.shape)));
  std::string shape;
  for (std::int64_t side : tensor.shape) shape += fmt::format("{}, ", side);
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr_of(tensor.dtype), shape);
  constexpr std::size_t kPrefix = 10, kAlignment = 64;  // version 1: magic, version, two bytes of length
  header.append((kAlignment - (kPrefix + header.size() + 1) % kAlignment) % kAlignment, ' ');
  header += '\n';
  if (header.size() > 0xFFFF) throw Error("its shape has too many sides");
  std::string npy = std::string(kMagic) + '\x01' + '\0' + static_cast<char>(header.size() & 0xFF) + static_cast<char>(header.size() >> 8) + header;
  npy.append(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
  return npy;
}

}  // namespace

TensorFile read_npz(const std::filesystem::path& path) {
  std::string member;
  try {
    const ZipReader zip(path);
    TensorFile file;
    for (const std::string& name : zip.names()) {
      member = fmt::format("array {}: ", name);
      HostTensor tensor = parse_npy(zip.read(name));
      const std::string key = name.ends_with(kExtension) ? name.substr(0, name.size() - kExtension.size()) : name;
      if (file.find(key)) throw Error("it is there twice");
      file.tensors.emplace_back(key, std::move(tensor));
    }
    return file;
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read {} as .npz: {}{}", path.string(), printable(member), printable(error.what())));
  }
}

HostTensor read_npy(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  try {
    return parse_npy(std::as_bytes(std::span(text)));
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read {} as .npy: {}", path.string(), printable(error.what())));
  }
}

void write_npy(const std::filesystem::path& path, const HostTensor& tensor) {
  std::string npy;
  try {
    npy = make_npy(tensor);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot write {}: {}", path.string(), error.what()));
  }
  write_file(path, std::string_view(npy));
}

void write_npz(const std::filesystem::path& path, const TensorFile& file) {
  std::vector<std::string> arrays;
  std::string member;
  try {
    for (const auto& [name, tensor] : file.tensors) {
      member = name;
      arrays.push_back(make_npy(tensor));
    }
  } catch (const Error& error) {
    throw Error(fmt::format("cannot write {}: array {}: {}", path.string(), printable(member), printable(error.what())));
  }
  std::vector<ZipMember> members;
  for (std::size_t i = 0; i < arrays.size(); ++i)
    members.push_back({file.tensors[i].first + std::string(kExtension), std::as_bytes(std::span(arrays[i]))});
  write_zip(path, members, true);
}

}  // namespace uvit
