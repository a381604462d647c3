#include "io/pth.h"

#include <fmt/format.h>

#include <cstring>
#include <unordered_map>

#include "core/error.h"
#include "core/name_table.h"
#include "core/printable.h"
#include "io/pickle.h"
#include "io/zip_archive.h"

namespace uvit {
namespace {

constexpr std::string_view kPickleName = "/data.pkl";

/// "NAME/" that the members of a torch.save file share.
std::string archive_root(const ZipReader& zip) {
  for (const std::string& name : zip.names()) {
    const std::size_t slash = name.find('/');
    if (slash != std::string::npos && std::string_view(name).substr(slash) == kPickleName) return name.substr(0, slash + 1);
  }
  throw Error("it is a zip file without data.pkl, so torch.save did not write it");
}

/// Turns the graph that the unpickler made into values. A graph may share or hold its own parts, so a small file can describe an endless value: depth
/// and bytes are limited.
class Builder {
 public:
  Builder(const ZipReader& zip, std::string root) : zip_(zip), root_(std::move(root)), budget_(kBaseBudget + kBudgetFactor * zip.file_size()) {}

  PthValue build(const PickleNode& node, int depth = 0) {
    if (depth > kDeepest) throw Error("its values are nested too deeply, or hold themselves");
    charge(kBytesOfNode);
    return std::visit([&](const auto& value) { return convert(value, depth + 1); }, node.value);
  }

 private:
  static constexpr std::uint64_t kBaseBudget = 64 << 20, kBudgetFactor = 64, kBytesOfNode = 64;
  static constexpr int kDeepest = 100;

  void charge(std::uint64_t bytes) {
    if (bytes > budget_) throw Error("its values would take many times the file's size");
    budget_ -= bytes;
  }

  template <class T>
  PthValue convert(const T& plain, int) {
    if constexpr (std::is_same_v<T, std::string>) charge(plain.size());
    return PthValue{plain};
  }
  PthValue convert(const PickleSequence& sequence, int depth) {
    PthValue::List list;
    for (const PickleNode* item : sequence.items) list.push_back(build(*item, depth));
    return PthValue{std::move(list)};
  }
  PthValue convert(const PickleDict& source, int depth) {
    PthValue::Dict dict;
    std::unordered_map<std::string, std::size_t> places;  // a key set again replaces its value, as in Python
    for (const auto& [key, value] : source.items) {
      const auto* name = std::get_if<std::string>(&key->value);
      const auto place = name ? places.find(*name) : places.end();
      if (place != places.end()) {
        dict[place->second].second = build(*value, depth);
        continue;
      }
      if (name) places[*name] = dict.size();
      dict.emplace_back(build(*key, depth), build(*value, depth));
    }
    return PthValue{std::move(dict)};
  }
  PthValue convert(const PickleCallable&, int) { throw Error("it holds a class where a value belongs"); }
  PthValue convert(const PickleStorage& storage, int depth) { return convert(PickleTensor{&storage, 0, {storage.numel}, {1}}, depth); }
  PthValue convert(const PickleTensor& tensor, int);

  const std::vector<std::byte>& storage_bytes(const PickleStorage& storage, std::size_t element) {
    auto found = storages_.find(storage.key);
    if (found == storages_.end()) found = storages_.emplace(storage.key, zip_.read(root_ + "data/" + storage.key)).first;
    if (found->second.size() / element < static_cast<std::size_t>(storage.numel))
      throw Error(fmt::format("storage {} has {} bytes, too few for {} elements", storage.key, found->second.size(), storage.numel));
    return found->second;
  }

  const ZipReader& zip_;
  std::string root_;
  std::uint64_t budget_;
  std::unordered_map<std::string, std::vector<std::byte>> storages_;
};

/// Copies a strided tensor into row-major order; all elements lie inside `source` (check_extent).
void copy_strided(const PickleTensor& tensor, std::size_t element, const std::byte* source, std::vector<std::byte>& out) {
  const std::size_t dims = tensor.shape.size();
  std::int64_t expected = 1;  // stride of a row-major tensor
  bool contiguous = true;
  for (std::size_t i = dims; i-- > 0;) {
    contiguous = contiguous && (tensor.shape[i] == 1 || tensor.strides[i] == expected);
    expected *= tensor.shape[i];
  }
  source += static_cast<std::size_t>(tensor.offset) * element;
  if (contiguous) {
    std::memcpy(out.data(), source, out.size());
    return;
  }
  std::vector<std::int64_t> index(dims, 0);
  std::int64_t at = 0;
  for (std::size_t done = 0; done < out.size(); done += element) {
    std::memcpy(out.data() + done, source + static_cast<std::size_t>(at) * element, element);
    for (std::size_t i = dims; i-- > 0;) {
      at += tensor.strides[i];
      if (++index[i] < tensor.shape[i]) break;
      at -= tensor.strides[i] * tensor.shape[i];
      index[i] = 0;
    }
  }
}

PthValue Builder::convert(const PickleTensor& tensor, int) {
  const PickleCallable& type = tensor.storage->type;
  HostTensor host{type.dtype, tensor.shape, {}};
  if (type.complex) host.shape.push_back(2);
  const std::optional<std::size_t> size = byte_size(host.dtype, host.shape);
  if (!size) throw Error(fmt::format("a tensor of shape {} is too large", format_shape(host.shape)));
  charge(*size);
  const std::size_t element = size_of(type.dtype) * (type.complex ? 2 : 1);
  const std::vector<std::byte>& bytes = storage_bytes(*tensor.storage, element);
  host.data.resize(*size);
  if (*size > 0) copy_strided(tensor, element, bytes.data(), host.data);
  return PthValue{std::move(host)};
}

PthValue read_checked(const std::filesystem::path& path) {
  const ZipReader zip(path);
  const std::string root = archive_root(zip);
  if (zip.contains(root + "byteorder")) {
    const std::vector<std::byte> order = zip.read(root + "byteorder");
    if (std::string_view(reinterpret_cast<const char*>(order.data()), order.size()) != "little")
      throw Error("it was written on a big-endian machine");
  }
  const std::vector<std::byte> pickle = zip.read(root + std::string(kPickleName.substr(1)));
  Unpickler unpickler(pickle);
  return Builder(zip, root).build(unpickler.load());
}

/// The dict itself, or the one under "state_dict" or "model".
PthValue::Dict& state_dict_of(PthValue& value) {
  auto* dict = std::get_if<PthValue::Dict>(&value.value);
  if (!dict) throw Error("it holds no dict of tensors");
  for (auto& [key, item] : *dict) {
    const auto* name = std::get_if<std::string>(&key.value);
    auto* inner = std::get_if<PthValue::Dict>(&item.value);
    if (name && inner && (*name == "state_dict" || *name == "model")) return *inner;
  }
  return *dict;
}

}  // namespace

const PthValue* PthValue::find(std::string_view key) const {
  const Dict* dict = std::get_if<Dict>(&value);
  if (!dict) return nullptr;
  for (const auto& [name, item] : *dict)
    if (const auto* text = std::get_if<std::string>(&name.value); text && *text == key) return &item;
  return nullptr;
}

const PthValue& PthValue::at(std::string_view key) const {
  if (const PthValue* item = find(key)) return *item;
  const Dict* dict = std::get_if<Dict>(&value);
  if (!dict) throw Error(fmt::format("no dict where '{}' was looked for", key));
  std::vector<std::string> names;
  for (const auto& [name, item] : *dict)
    if (const auto* text = std::get_if<std::string>(&name.value)) names.push_back(*text);
  const std::string nearest = nearest_name(key, names);
  throw Error(fmt::format("the dict has no '{}'{}", key, nearest.empty() ? "" : fmt::format(": did you mean '{}'?", nearest)));
}

PthValue read_pth(const std::filesystem::path& path) {
  try {
    return read_checked(path);
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read {} as a torch.save file: {}", path.string(), printable(error.what())));
  }
}

TensorFile read_pth_state_dict(const std::filesystem::path& path) {
  PthValue value = read_pth(path);
  try {
    TensorFile file;
    for (auto& [key, item] : state_dict_of(value)) {
      const auto* name = std::get_if<std::string>(&key.value);
      auto* tensor = std::get_if<HostTensor>(&item.value);
      if (!name) throw Error("its dict has a key that is no string, so it is no state dict");
      if (!tensor) throw Error(fmt::format("'{}' is no tensor, so it is no state dict", *name));
      file.tensors.emplace_back(*name, std::move(*tensor));
    }
    if (file.tensors.empty()) throw Error("its dict is empty");
    return file;
  } catch (const Error& error) {
    throw Error(fmt::format("cannot read {} as a state dict: {}", path.string(), printable(error.what())));
  }
}

}  // namespace uvit
