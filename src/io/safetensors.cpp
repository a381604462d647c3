#include "io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/printable.h"
#include "io/file_descriptor.h"

namespace uvit {
namespace {

using Json = nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little, "the file formats are little-endian and are read without conversion");

constexpr std::uint64_t kLargestHeader = 100'000'000;  // the limit of the reference implementation
constexpr std::string_view kMetadata = "__metadata__";

constexpr std::array kAllDTypes = {DType::f64, DType::f32, DType::f16, DType::bf16, DType::i64,
                                   DType::i32, DType::i16, DType::i8,  DType::u8,   DType::boolean};

DType parse_dtype(const std::string& name) {
  for (DType dtype : kAllDTypes)
    if (name_of(dtype) == name) return dtype;
  throw Error(fmt::format("dtype {} is not supported", name));
}

/// The JSON header. Refuses what JSON readers otherwise pass over: keys given twice, and depths that no such file has.
Json parse_header(const std::string& text) {
  std::set<std::string> names;
  const auto check = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > 3) throw Error("the header is nested too deeply");
    if (depth == 1 && event == Json::parse_event_t::key && !names.insert(parsed.get<std::string>()).second)
      throw Error(fmt::format("tensor '{}' is listed twice", parsed.get<std::string>()));
    return true;
  };
  try {
    Json header = Json::parse(text, check);
    if (!header.is_object()) throw Error("the header is not a JSON object");
    return header;
  } catch (const Json::exception&) {  // a number that overflows is no parse_error
    throw Error("the header is not valid JSON");
  }
}

std::uint64_t unsigned_of(const Json& value, const char* what) {
  if (!value.is_number_unsigned()) throw Error(fmt::format("{} is not a whole number >= 0", what));
  const auto number = value.get<std::uint64_t>();
  if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) throw Error(fmt::format("{} is too large", what));
  return number;
}

struct Entry {
  std::string name;
  HostTensor tensor;
  std::uint64_t begin = 0, end = 0;
};

Entry parse_entry(const std::string& name, const Json& value) {
  Entry entry;
  entry.name = name;
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") || !value.contains("data_offsets"))
    throw Error("it lacks dtype, shape or data_offsets");
  if (!value["dtype"].is_string()) throw Error("its dtype is not a string");
  entry.tensor.dtype = parse_dtype(value["dtype"].get<std::string>());
  if (!value["shape"].is_array()) throw Error("its shape is not a list");
  for (const Json& side : value["shape"]) entry.tensor.shape.push_back(static_cast<std::int64_t>(unsigned_of(side, "a side of its shape")));
  const Json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) throw Error("its data_offsets are not two numbers");
  entry.begin = unsigned_of(offsets[0], "its data offset");
  entry.end = unsigned_of(offsets[1], "its data offset");
  if (entry.begin > entry.end) throw Error("its data ends before it begins");
  const std::optional<std::size_t> size = byte_size(entry.tensor.dtype, entry.tensor.shape);
  if (!size || *size != entry.end - entry.begin)
    throw Error(fmt::format("shape {} of {} does not fill its {} bytes", format_shape(entry.tensor.shape), name_of(entry.tensor.dtype),
                            entry.end - entry.begin));
  return entry;
}

/// The entries in order of their data must follow one another without overlap or hole and end with the file.
void check_layout(const std::vector<Entry>& entries, std::uint64_t data_size) {
  std::vector<const Entry*> order;
  for (const Entry& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) { return std::pair(a->begin, a->end) < std::pair(b->begin, b->end); });
  std::uint64_t position = 0;
  for (const Entry* entry : order) {
    if (entry->begin < position) throw Error(fmt::format("tensor '{}' overlaps another", entry->name));
    if (entry->begin > position) throw Error(fmt::format("there is a hole of {} bytes before tensor '{}'", entry->begin - position, entry->name));
    position = entry->end;
  }
  if (position > data_size) throw Error(fmt::format("it is truncated: the header promises {} bytes of data and {} are there", position, data_size));
  if (position < data_size) throw Error(fmt::format("{} bytes follow the last tensor", data_size - position));
}

std::vector<Entry> parse_entries(const Json& header, std::map<std::string, std::string>& metadata) {
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) {
      if (!value.is_object()) throw Error("__metadata__ is not a JSON object");
      for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) throw Error(fmt::format("__metadata__ '{}' is not a string", key));
        metadata[key] = text.get<std::string>();
      }
      continue;
    }
    try {
      entries.push_back(parse_entry(name, value));
    } catch (const Error& error) {
      throw Error(fmt::format("tensor '{}': {}", name, error.what()));
    }
  }
  return entries;
}

/// What the header says; data offsets count from data_start.
struct Layout {
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
  std::uint64_t data_start = 0;
};

Layout read_layout(const InputFile& file) {
  std::uint64_t header_size = 0;
  if (file.size() < sizeof header_size) throw Error("it is shorter than the header");
  file.read(std::as_writable_bytes(std::span(&header_size, 1)), 0);
  if (header_size > kLargestHeader || header_size > file.size() - sizeof header_size)
    throw Error(fmt::format("it is truncated or no safetensors file: a header of {} bytes in a file of {}", header_size, file.size()));
  std::string text(header_size, '\0');
  file.read(std::as_writable_bytes(std::span(text)), sizeof header_size);
  Layout layout;
  layout.entries = parse_entries(parse_header(text), layout.metadata);
  layout.data_start = sizeof header_size + header_size;
  check_layout(layout.entries, file.size() - layout.data_start);
  return layout;
}

TensorFile read_checked(const InputFile& file) {
  Layout layout = read_layout(file);
  TensorFile result;
  result.metadata = std::move(layout.metadata);
  for (Entry& entry : layout.entries) {
    entry.tensor.data.resize(entry.end - entry.begin);
    file.read(entry.tensor.data, layout.data_start + entry.begin);
    result.tensors.emplace_back(std::move(entry.name), std::move(entry.tensor));
  }
  return result;
}

/// Positions of the tensors' data: wide types first, so that each lies at a multiple of its size.
std::vector<std::size_t> data_order(const TensorFile& file) {
  std::vector<std::size_t> order(file.tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return size_of(file.tensors[a].second.dtype) > size_of(file.tensors[b].second.dtype); });
  return order;
}

std::string make_header(const TensorFile& file, const std::vector<std::size_t>& order) {
  std::vector<std::uint64_t> begins(order.size());
  std::uint64_t position = 0;
  for (std::size_t i : order) {
    begins[i] = position;
    position += file.tensors[i].second.data.size();
  }
  Json header = Json::object();
  if (!file.metadata.empty()) header[std::string(kMetadata)] = file.metadata;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto& [name, tensor] = file.tensors[i];
    if (name == kMetadata || header.contains(name)) throw Error(fmt::format("the name '{}' is reserved or given twice", name));
    if (byte_size(tensor.dtype, tensor.shape) != tensor.data.size())
      throw Error(
          fmt::format("tensor '{}': {} bytes are no {} of shape {}", name, tensor.data.size(), name_of(tensor.dtype), format_shape(tensor.shape)));
    header[name] = {{"dtype", name_of(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {begins[i], begins[i] + tensor.data.size()}}};
  }
  try {
    std::string text = header.dump();
    text.append((8 - text.size() % 8) % 8, ' ');  // the data begins at a multiple of 8
    return text;
  } catch (const Json::type_error&) {
    throw Error("a tensor name or metadata is not valid UTF-8");
  }
}

}  // namespace

TensorFile read_safetensors(const std::filesystem::path& path) {
  const InputFile file(path);
  try {
    return read_checked(file);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read {} as safetensors: {}", path.string(), printable(error.what())));
  }
}

struct SafetensorsReader::State {
  explicit State(const std::filesystem::path& path_) : path(path_), file(path_) {}
  std::filesystem::path path;
  InputFile file;
  Layout layout;
};

SafetensorsReader::SafetensorsReader(const std::filesystem::path& path) : state_(std::make_unique<State>(path)) {
  try {
    state_->layout = read_layout(state_->file);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read {} as safetensors: {}", path.string(), printable(error.what())));
  }
}

SafetensorsReader::~SafetensorsReader() = default;
SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;

const HostTensor* SafetensorsReader::find(std::string_view name) const {
  for (const Entry& entry : state_->layout.entries)
    if (entry.name == name) return &entry.tensor;
  return nullptr;
}

HostTensor SafetensorsReader::read(std::string_view name) const {
  for (const Entry& entry : state_->layout.entries) {
    if (entry.name != name) continue;
    HostTensor tensor = entry.tensor;
    tensor.data.resize(entry.end - entry.begin);
    state_->file.read(tensor.data, state_->layout.data_start + entry.begin);
    return tensor;
  }
  throw Error(fmt::format("{} has no tensor '{}'", state_->path.string(), name));
}

void SafetensorsReader::read_row(std::string_view name, std::int64_t row, std::span<std::byte> out) const {
  for (const Entry& entry : state_->layout.entries) {
    if (entry.name != name) continue;
    const std::vector<std::int64_t>& shape = entry.tensor.shape;
    if (shape.empty() || row < 0 || row >= shape.front() || out.size() * static_cast<std::uint64_t>(shape.front()) != entry.end - entry.begin)
      throw Error(fmt::format("{}: tensor '{}' {} has no row {} of {} bytes", state_->path.string(), name, format_shape(shape), row, out.size()));
    return state_->file.read(out, state_->layout.data_start + entry.begin + static_cast<std::uint64_t>(row) * out.size());
  }
  throw Error(fmt::format("{} has no tensor '{}'", state_->path.string(), name));
}

void write_safetensors(const std::filesystem::path& path, const TensorFile& file) {
  const std::vector<std::size_t> order = data_order(file);
  std::string header;
  try {
    header = make_header(file, order);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot write {}: {}", path.string(), error.what()));
  }
  replace_file(path, [&](const std::filesystem::path& temporary) {
    OutputFile out(temporary, path);
    const std::uint64_t header_size = header.size();
    out.write(std::as_bytes(std::span(&header_size, 1)));
    out.write(std::as_bytes(std::span(header)));
    for (std::size_t i : order) out.write(file.tensors[i].second.data);
    out.close();
  });
}

}  // namespace uvit
