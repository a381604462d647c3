#include "io/npz.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <regex>

#include "core/error.h"
#include "io/zip_archive.h"

namespace uvit {
namespace {

static_assert(std::endian::native == std::endian::little, "the .npy members are little-endian");

struct NumpyType {
  const char* descr;
  DType dtype;
};
constexpr NumpyType kNumpyTypes[] = {{"<f8", DType::f64}, {"<f4", DType::f32}, {"<f2", DType::f16}, {"<i8", DType::i64}, {"<i4", DType::i32},
                                     {"<i2", DType::i16}, {"|i1", DType::i8},  {"|u1", DType::u8},  {"|b1", DType::boolean}};

struct NpyHeader {
  DType dtype{};
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
  std::size_t data_offset = 0;
};

/// The header of a .npy: magic, version, length, then a Python dict literal with descr, fortran_order and shape.
NpyHeader parse_header(const std::vector<std::byte>& bytes) {
  const auto* raw = reinterpret_cast<const unsigned char*>(bytes.data());
  if (bytes.size() < 10 || std::memcmp(raw, "\x93NUMPY", 6) != 0) throw Error("not a .npy array");
  const bool long_header = raw[6] >= 2;
  const std::size_t start = long_header ? 12 : 10;
  if (bytes.size() < start) throw Error("truncated header");
  std::size_t length = raw[8] | (raw[9] << 8);
  if (long_header) length |= (static_cast<std::size_t>(raw[10]) << 16) | (static_cast<std::size_t>(raw[11]) << 24);
  if (length > bytes.size() - start || length > 65536) throw Error("truncated header");
  const std::string text(reinterpret_cast<const char*>(raw) + start, length);

  NpyHeader header;
  header.data_offset = start + length;
  std::smatch match;
  if (!std::regex_search(text, match, std::regex("'descr': *'([^']*)'"))) throw Error("no plain dtype in the header (structured arrays are not read)");
  const std::string descr = match[1];
  const auto* type = std::find_if(std::begin(kNumpyTypes), std::end(kNumpyTypes), [&](const NumpyType& t) { return descr == t.descr; });
  if (type == std::end(kNumpyTypes)) throw Error(fmt::format("dtype '{}' is not supported", descr));
  header.dtype = type->dtype;
  if (!std::regex_search(text, match, std::regex("'fortran_order': *(True|False)"))) throw Error("no fortran_order in the header");
  header.fortran_order = match[1] == "True";
  if (!std::regex_search(text, match, std::regex("'shape': *\\(([0-9, ]*)\\)"))) throw Error("no shape in the header");
  const std::string shape = match[1];
  for (auto it = std::sregex_iterator(shape.begin(), shape.end(), std::regex("[0-9]{1,15}")); it != std::sregex_iterator(); ++it)
    header.shape.push_back(std::stoll(it->str()));
  return header;
}

/// Column-major bytes as row-major ones.
std::vector<std::byte> from_fortran(const std::byte* data, const std::vector<std::int64_t>& shape, std::size_t item, std::size_t count) {
  std::vector<std::byte> result(count * item);
  std::vector<std::int64_t> position(shape.size(), 0);
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t source = 0;
    for (std::size_t d = shape.size(); d-- > 0;) source = source * static_cast<std::size_t>(shape[d]) + static_cast<std::size_t>(position[d]);
    std::memcpy(result.data() + i * item, data + source * item, item);
    for (std::size_t d = shape.size(); d-- > 0;) {
      if (++position[d] < shape[d]) break;
      position[d] = 0;
    }
  }
  return result;
}

HostTensor parse_npy(const std::vector<std::byte>& bytes) {
  const NpyHeader header = parse_header(bytes);
  const std::size_t item = size_of(header.dtype), available = (bytes.size() - header.data_offset) / item;
  std::size_t count = 1;
  for (std::int64_t side : header.shape) {
    if (side != 0 && count > available / static_cast<std::size_t>(side)) throw Error(fmt::format("truncated: shape {} does not fit", format_shape(header.shape)));
    count *= static_cast<std::size_t>(side);
  }
  if (count != available || (bytes.size() - header.data_offset) % item != 0)
    throw Error(fmt::format("{} bytes of data for shape {}", bytes.size() - header.data_offset, format_shape(header.shape)));
  HostTensor tensor{header.dtype, header.shape, {}};
  const std::byte* data = bytes.data() + header.data_offset;
  if (header.fortran_order && header.shape.size() > 1) {
    tensor.data = from_fortran(data, header.shape, item, count);
  } else {
    tensor.data.assign(data, data + count * item);
  }
  return tensor;
}

std::vector<std::byte> make_npy(const std::string& name, const HostTensor& tensor) {
  const auto* type = std::find_if(std::begin(kNumpyTypes), std::end(kNumpyTypes), [&](const NumpyType& t) { return tensor.dtype == t.dtype; });
  if (type == std::end(kNumpyTypes)) throw Error(fmt::format("{}: numpy has no {}", name, name_of(tensor.dtype)));
  std::string shape;
  for (std::int64_t side : tensor.shape) shape += fmt::format("{}, ", side);
  if (tensor.shape.size() > 1) shape.resize(shape.size() - 2);
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type->descr, shape);
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');  // numpy aligns the data to 64 bytes
  header += '\n';
  std::string start = "\x93NUMPY";
  start += {'\x01', '\x00', static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  start += header;
  std::vector<std::byte> bytes(start.size() + tensor.data.size());
  std::memcpy(bytes.data(), start.data(), start.size());
  if (!tensor.data.empty()) std::memcpy(bytes.data() + start.size(), tensor.data.data(), tensor.data.size());
  return bytes;
}

}  // namespace

TensorFile read_npz(const std::filesystem::path& path) {
  std::string member;
  try {
    const ZipReader archive(path);
    TensorFile file;
    for (const std::string& name : archive.names()) {
      member = name;
      if (!name.ends_with(".npy")) continue;
      file.tensors.emplace_back(name.substr(0, name.size() - 4), parse_npy(archive.read(name)));
    }
    return file;
  } catch (const Error& error) {
    throw Error(fmt::format("{}{}: {}", path.string(), member.empty() ? "" : " (" + member + ")", error.what()));
  }
}

void write_npz(const std::filesystem::path& path, const TensorFile& file) {
  std::vector<std::vector<std::byte>> arrays;
  std::vector<ZipMember> members;
  arrays.reserve(file.tensors.size());
  for (const auto& [name, tensor] : file.tensors) {
    arrays.push_back(make_npy(name, tensor));
    members.push_back({name + ".npy", arrays.back()});
  }
  write_zip(path, members, true);
}

}  // namespace uvit
