#pragma once
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "io/host_tensor.h"

namespace uvit {

struct PickleNode;

/// The classes and functions that torch.save names in a file of plain data.
enum class PickleGlobal { ordered_dict, rebuild_tensor, rebuild_parameter, torch_size, encode, bytes, storage_type };

struct PickleCallable {
  PickleGlobal what;
  DType dtype = DType::u8;  ///< of a storage_type
  bool complex = false;     ///< of a storage_type: an element is two numbers of `dtype`
};
struct PickleSequence {  ///< a list or a tuple
  std::vector<PickleNode*> items;
  bool tuple = false;
};
struct PickleDict {
  std::vector<std::pair<PickleNode*, PickleNode*>> items;
  bool ordered = false;
};
struct PickleStorage {
  PickleCallable type;
  std::string key;  ///< name of the file's member below data/
  std::int64_t numel = 0;
};
struct PickleTensor {
  const PickleStorage* storage = nullptr;
  std::int64_t offset = 0;  ///< in elements
  std::vector<std::int64_t> shape, strides;
};
struct PickleNode {
  std::variant<std::monostate, bool, std::int64_t, double, std::string, PickleSequence, PickleDict, PickleCallable, PickleStorage, PickleTensor>
      value;
};

/// Runs a pickle (protocols 2 to 5) with no power to run anything else: only the globals above exist, and each does what it is known to do.
/// Nodes live as long as this object; lists and dicts may hold themselves.
class Unpickler {
 public:
  explicit Unpickler(std::span<const std::byte> bytes) : bytes_(bytes) {}
  Unpickler(const Unpickler&) = delete;
  Unpickler& operator=(const Unpickler&) = delete;

  /// The object. Throws Error for an unknown opcode or global, a truncated or malformed stream, sizes or strides outside a storage.
  const PickleNode& load();

 private:
  // reading
  std::uint64_t unsigned_number(std::size_t bytes);
  std::string text(std::uint64_t length);
  std::string line();
  // the machine
  template <class T>
  PickleNode* make(T value);
  PickleNode* pop();
  std::vector<PickleNode*> pop_to_mark();
  PickleNode& top();
  void execute(unsigned char opcode);
  bool execute_value(unsigned char opcode);
  bool execute_container(unsigned char opcode);
  void memo_put(std::uint64_t slot);
  void memo_get(std::uint64_t slot);
  void append(std::span<PickleNode* const> items);
  void set_items(std::span<PickleNode* const> items);
  void reduce();
  void build();
  PickleNode* call(const PickleCallable& callable, const std::vector<PickleNode*>& arguments);
  PickleNode* persistent(const PickleNode& id);
  PickleNode* global(const std::string& module, const std::string& name);

  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::deque<PickleNode> nodes_;
  std::vector<PickleNode*> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, PickleNode*> memo_;
};

}  // namespace uvit
