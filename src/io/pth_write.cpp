#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <set>

#include "core/error.h"
#include "io/pth.h"
#include "io/zip_archive.h"

namespace uvit {
namespace {

std::string_view storage_name(DType dtype) {
  switch (dtype) {
    case DType::f64: return "DoubleStorage";
    case DType::f32: return "FloatStorage";
    case DType::f16: return "HalfStorage";
    case DType::bf16: return "BFloat16Storage";
    case DType::i64: return "LongStorage";
    case DType::i32: return "IntStorage";
    case DType::i16: return "ShortStorage";
    case DType::i8: return "CharStorage";
    case DType::u8: return "ByteStorage";
    case DType::boolean: return "BoolStorage";
  }
  throw std::logic_error("a dtype outside its enumeration");
}

/// Writes a pickle of protocol 2 with the opcodes that torch.load(weights_only=True) knows.
class Pickler {
 public:
  void op(unsigned char opcode) { text_ += static_cast<char>(opcode); }
  void global(std::string_view module, std::string_view name) { text_ += fmt::format("c{}\n{}\n", module, name); }
  void string(std::string_view value) {
    op('X');
    little_endian(value.size(), 4);
    text_ += value;
  }
  void integer(std::int64_t value) {
    if (value >= 0 && value <= std::numeric_limits<std::int32_t>::max()) {
      op('J');
      little_endian(static_cast<std::uint64_t>(value), 4);
    } else {
      op(0x8a);
      little_endian(8, 1);
      little_endian(static_cast<std::uint64_t>(value), 8);
    }
  }
  void tuple(const std::vector<std::int64_t>& values) {
    op('(');
    for (std::int64_t value : values) integer(value);
    op('t');
  }
  void real(double value) {  // big-endian, as BINFLOAT wants it
    op('G');
    const auto bits = std::bit_cast<std::uint64_t>(value);
    for (int i = 7; i >= 0; --i) op(static_cast<unsigned char>(bits >> (8 * i)));
  }
  void empty_ordered_dict() {
    global("collections", "OrderedDict");
    op(')');
    op('R');
  }
  const std::string& text() const { return text_; }

 private:
  void little_endian(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) op(static_cast<unsigned char>(value >> (8 * i)));
  }
  std::string text_;
};

std::vector<std::int64_t> row_major_strides(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<std::int64_t>(shape[i], 1);
  return strides;
}

void put_tensor(Pickler& out, const HostTensor& tensor, std::size_t key) {
  out.global("torch._utils", "_rebuild_tensor_v2");
  out.op('(');
  out.op('(');  // persistent id: ("storage", type, key, location, number of elements)
  out.string("storage");
  out.global("torch", storage_name(tensor.dtype));
  out.string(fmt::format("{}", key));
  out.string("cpu");
  out.integer(tensor.numel());
  out.op('t');
  out.op('Q');
  out.integer(0);  // offset
  out.tuple(tensor.shape);
  out.tuple(row_major_strides(tensor.shape));
  out.op(0x89);  // requires_grad = False
  out.empty_ordered_dict();
  out.op('t');
  out.op('R');
}

void check(const HostTensor& tensor, std::string_view name) {
  if (byte_size(tensor.dtype, tensor.shape) != tensor.data.size())
    throw Error(fmt::format("tensor '{}': {} bytes are no {} of shape {}", name, tensor.data.size(), name_of(tensor.dtype), format_shape(tensor.shape)));
}

void check(const TensorFile& file) {
  std::set<std::string_view> names;
  for (const auto& [name, tensor] : file.tensors) {
    if (!names.insert(name).second) throw Error(fmt::format("the name '{}' is given twice", name));
    check(tensor, name);
  }
}

// clang 14 can make the pairs of a PthValue::Dict only where it has seen a PthValue end before.
[[maybe_unused]] void end_of_value() { const PthValue value; }

/// Writes values one by one and collects the storages of their tensors, whose number is the storage's key.
class ValuePickler {
 public:
  void put(const PthValue& value, int depth = 0) {
    constexpr int kDeepest = 100;
    if (depth > kDeepest) throw Error("its values are nested too deeply");
    std::visit([&](const auto& held) { put_held(held, depth + 1); }, value.value);
  }
  Pickler pickle;
  std::vector<const HostTensor*> storages;

 private:
  void put_held(std::monostate, int) { pickle.op('N'); }
  void put_held(bool value, int) { pickle.op(value ? 0x88 : 0x89); }
  void put_held(std::int64_t value, int) { pickle.integer(value); }
  void put_held(double value, int) { pickle.real(value); }
  void put_held(const std::string& value, int) { pickle.string(value); }
  void put_held(const HostTensor& tensor, int) {
    check(tensor, fmt::format("{}", storages.size()));
    put_tensor(pickle, tensor, storages.size());
    storages.push_back(&tensor);
  }
  void put_held(const PthValue::List& list, int depth) {
    pickle.op(']');
    pickle.op('(');
    for (const PthValue& item : list) put(item, depth);
    pickle.op('e');
  }
  void put_held(const PthValue::Dict& dict, int depth) {
    pickle.op('}');
    pickle.op('(');
    for (const auto& [key, item] : dict) {
      put(key, depth);
      put(item, depth);
    }
    pickle.op('u');
  }
};

void write_archive(const std::filesystem::path& path, const Pickler& pickle, const std::vector<const HostTensor*>& storages) {
  const auto bytes_of = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  std::vector<ZipMember> members = {{"archive/data.pkl", bytes_of(pickle.text())}, {"archive/byteorder", bytes_of("little")}};
  for (std::size_t i = 0; i < storages.size(); ++i) members.push_back({fmt::format("archive/data/{}", i), storages[i]->data});
  members.push_back({"archive/version", bytes_of("3\n")});
  write_zip(path, members, false);
}

void begin(Pickler& pickle) {
  pickle.op(0x80);  // PROTO 2
  pickle.op(2);
}

}  // namespace

void write_pth_state_dict(const std::filesystem::path& path, const TensorFile& file) {
  try {
    check(file);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot write {}: {}", path.string(), error.what()));
  }
  Pickler pickle;
  begin(pickle);
  pickle.empty_ordered_dict();
  pickle.op('(');
  std::vector<const HostTensor*> storages;
  for (const auto& [name, tensor] : file.tensors) {
    pickle.string(name);
    put_tensor(pickle, tensor, storages.size());
    storages.push_back(&tensor);
  }
  pickle.op('u');
  pickle.op('.');
  write_archive(path, pickle, storages);
}

void write_pth(const std::filesystem::path& path, const PthValue& value) {
  ValuePickler values;
  begin(values.pickle);
  try {
    values.put(value);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot write {}: {}", path.string(), error.what()));
  }
  values.pickle.op('.');
  write_archive(path, values.pickle, values.storages);
}

}  // namespace uvit
