#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "io/host_tensor.h"

namespace uvit {

/// A value of a torch.save file: what the restricted unpickler can make. No code of the file is ever run.
struct PthValue {
  using List = std::vector<PthValue>;
  using Dict = std::vector<std::pair<PthValue, PthValue>>;
  std::variant<std::monostate, bool, std::int64_t, double, std::string, HostTensor, List, Dict> value;

  /// The value under a string key. Throws Error where this is no dict or has no such key.
  const PthValue& at(std::string_view key) const;
  const PthValue* find(std::string_view key) const;
};

/// Reads what torch.save(object) wrote (zip format): dicts, OrderedDicts, lists, tuples, numbers, strings, tensors and parameters.
/// Strided, overlapping and shared storages are followed; a complex tensor is read as real with a last side of 2 (real, imaginary).
/// Any other class is refused by name.
/// Throws Error naming the file.
PthValue read_pth(const std::filesystem::path& path);

/// A state dict: the tensors of a dict, also where it lies under "state_dict" or "model". Throws Error where there is none, or where the dict holds
/// anything but tensors.
TensorFile read_pth_state_dict(const std::filesystem::path& path);

/// Writes what torch.load(path, weights_only=True) reads: None, bool, int, float, str, list, dict and tensors, each tensor with a storage of its own.
/// Throws Error for a tensor whose bytes do not fit its shape, or values nested a hundred deep.
void write_pth(const std::filesystem::path& path, const PthValue& value);

/// Writes an OrderedDict of tensors that torch.load(path, weights_only=True) reads.
void write_pth_state_dict(const std::filesystem::path& path, const TensorFile& file);

}  // namespace uvit
