#include "io/pickle.h"

#include <fmt/format.h>

#include <array>
#include <bit>
#include <cstring>
#include <string_view>

#include "core/error.h"

namespace uvit {
namespace {

struct GlobalRow {
  std::string_view module, name;
  PickleCallable callable;
};

using enum PickleGlobal;
constexpr std::array kGlobals = {
    GlobalRow{"collections", "OrderedDict", {ordered_dict}},
    GlobalRow{"torch._utils", "_rebuild_tensor_v2", {rebuild_tensor}},
    GlobalRow{"torch._utils", "_rebuild_parameter", {rebuild_parameter}},
    GlobalRow{"torch", "Size", {torch_size}},
    GlobalRow{"_codecs", "encode", {encode}},    // how protocol 2 writes bytes
    GlobalRow{"__builtin__", "bytes", {bytes}},  // how protocol 2 writes empty bytes
    GlobalRow{"builtins", "bytes", {bytes}},
    GlobalRow{"torch", "DoubleStorage", {storage_type, DType::f64}},
    GlobalRow{"torch", "FloatStorage", {storage_type, DType::f32}},
    GlobalRow{"torch", "HalfStorage", {storage_type, DType::f16}},
    GlobalRow{"torch", "BFloat16Storage", {storage_type, DType::bf16}},
    GlobalRow{"torch", "LongStorage", {storage_type, DType::i64}},
    GlobalRow{"torch", "IntStorage", {storage_type, DType::i32}},
    GlobalRow{"torch", "ShortStorage", {storage_type, DType::i16}},
    GlobalRow{"torch", "CharStorage", {storage_type, DType::i8}},
    GlobalRow{"torch", "ByteStorage", {storage_type, DType::u8}},
    GlobalRow{"torch", "BoolStorage", {storage_type, DType::boolean}},
    GlobalRow{"torch", "ComplexFloatStorage", {storage_type, DType::f32, true}},
    GlobalRow{"torch", "ComplexDoubleStorage", {storage_type, DType::f64, true}},
    GlobalRow{"torch.storage", "UntypedStorage", {storage_type, DType::u8}},
    GlobalRow{"torch", "UntypedStorage", {storage_type, DType::u8}},
};

template <class T>
const T& expect(const PickleNode& node, const char* what) {
  const T* value = std::get_if<T>(&node.value);
  if (!value) throw Error(fmt::format("the pickle is malformed: no {} where one belongs", what));
  return *value;
}

std::vector<std::int64_t> expect_sizes(const PickleNode& node) {
  constexpr std::size_t kMostDimensions = 64;
  const auto& sequence = expect<PickleSequence>(node, "tuple of sizes");
  if (sequence.items.size() > kMostDimensions) throw Error(fmt::format("a tensor of {} dimensions", sequence.items.size()));
  std::vector<std::int64_t> sizes;
  for (const PickleNode* item : sequence.items) {
    sizes.push_back(expect<std::int64_t>(*item, "size"));
    if (sizes.back() < 0) throw Error("a tensor with a negative size or stride");
  }
  return sizes;
}

/// Every element must lie inside the storage.
void check_extent(const PickleTensor& tensor) {
  const auto outside = [&]() -> Error {
    return Error(fmt::format("a tensor of shape {}, strides {} and offset {} reaches outside its storage of {} elements", format_shape(tensor.shape),
                             format_shape(tensor.strides), tensor.offset, tensor.storage->numel));
  };
  if (tensor.shape.size() != tensor.strides.size() || tensor.offset < 0 || !byte_size(DType::f64, tensor.shape)) throw outside();
  std::int64_t last = tensor.offset;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    std::int64_t reach = 0;
    if (tensor.shape[i] == 0) return;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach) || __builtin_add_overflow(last, reach, &last)) throw outside();
  }
  if (last >= tensor.storage->numel) throw outside();
}

/// Protocol 2 writes bytes as the text whose code points are the bytes.
std::string latin1_of_utf8(const std::string& utf8) {
  std::string bytes;
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const auto lead = static_cast<unsigned char>(utf8[i]);
    if (lead < 0x80) {
      bytes += utf8[i];
      continue;
    }
    if ((lead & 0xFC) != 0xC0 || i + 1 == utf8.size() || (static_cast<unsigned char>(utf8[i + 1]) & 0xC0) != 0x80)
      throw Error("the pickle is malformed: bytes that are not Latin-1");
    bytes += static_cast<char>((lead & 3) << 6 | (static_cast<unsigned char>(utf8[++i]) & 0x3F));
  }
  return bytes;
}

}  // namespace

std::uint64_t Unpickler::unsigned_number(std::size_t bytes) {
  if (bytes > bytes_.size() - position_) throw Error("the pickle is truncated");
  std::uint64_t value = 0;
  std::memcpy(&value, bytes_.data() + position_, bytes);
  position_ += bytes;
  return value;
}

std::string Unpickler::text(std::uint64_t length) {
  if (length > bytes_.size() - position_) throw Error("the pickle is truncated");
  const std::string value(reinterpret_cast<const char*>(bytes_.data()) + position_, length);
  position_ += length;
  return value;
}

std::string Unpickler::line() {
  const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + position_, bytes_.size() - position_);
  const std::size_t length = rest.find('\n');
  if (length == std::string_view::npos) throw Error("the pickle is truncated");
  position_ += length + 1;
  return std::string(rest.substr(0, length));
}

template <class T>
PickleNode* Unpickler::make(T value) {
  return &nodes_.emplace_back(PickleNode{std::move(value)});
}

PickleNode* Unpickler::pop() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) throw Error("the pickle is malformed: it takes more from its stack than is there");
  PickleNode* node = stack_.back();
  stack_.pop_back();
  return node;
}

PickleNode& Unpickler::top() {
  PickleNode* node = pop();
  stack_.push_back(node);
  return *node;
}

std::vector<PickleNode*> Unpickler::pop_to_mark() {
  if (marks_.empty()) throw Error("the pickle is malformed: no mark on its stack");
  std::vector<PickleNode*> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
  stack_.resize(marks_.back());
  marks_.pop_back();
  return items;
}

const PickleNode& Unpickler::load() {
  constexpr unsigned char kStop = '.';
  while (true) {
    const auto opcode = static_cast<unsigned char>(unsigned_number(1));
    if (opcode == kStop) return *pop();
    execute(opcode);
  }
}

void Unpickler::execute(unsigned char opcode) {
  if (execute_value(opcode) || execute_container(opcode)) return;
  switch (opcode) {
    case 0x80:  // PROTO
      if (const std::uint64_t protocol = unsigned_number(1); protocol < 2 || protocol > 5) throw Error(fmt::format("pickle protocol {}", protocol));
      return;
    case 0x95: unsigned_number(8); return;  // FRAME: a hint for readers of streams
    case 'q': memo_put(unsigned_number(1)); return;
    case 'r': memo_put(unsigned_number(4)); return;
    case 0x94: memo_put(memo_.size()); return;  // MEMOIZE
    case 'h': memo_get(unsigned_number(1)); return;
    case 'j': memo_get(unsigned_number(4)); return;
    case 'c': {  // GLOBAL
      const std::string module = line(), name = line();
      stack_.push_back(global(module, name));
      return;
    }
    case 0x93: {  // STACK_GLOBAL
      const PickleNode *name = pop(), *module = pop();
      stack_.push_back(global(expect<std::string>(*module, "name of a module"), expect<std::string>(*name, "name of a class")));
      return;
    }
    case 'R': reduce(); return;
    case 'b': build(); return;
    case 'Q': stack_.push_back(persistent(*pop())); return;  // BINPERSID
    default: throw Error(fmt::format("pickle opcode 0x{:02x} is not one that torch.save writes", opcode));
  }
}

bool Unpickler::execute_value(unsigned char opcode) {
  const auto push = [this](auto value) {
    stack_.push_back(make(std::move(value)));
    return true;
  };
  switch (opcode) {
    case 'N': return push(std::monostate());
    case 0x88: return push(true);
    case 0x89: return push(false);
    case 'K': return push(static_cast<std::int64_t>(unsigned_number(1)));
    case 'M': return push(static_cast<std::int64_t>(unsigned_number(2)));
    case 'J': return push(static_cast<std::int64_t>(static_cast<std::int32_t>(unsigned_number(4))));
    case 0x8a: {  // LONG1: two's complement of that many bytes
      const std::uint64_t length = unsigned_number(1);
      if (length > 8) throw Error("an integer of more than 64 bits");
      const std::uint64_t bits = unsigned_number(length);
      const int unused = 64 - 8 * static_cast<int>(length);
      return push(length == 0 ? std::int64_t{0} : static_cast<std::int64_t>(bits << unused) >> unused);
    }
    case 'G': return push(std::bit_cast<double>(__builtin_bswap64(unsigned_number(8))));  // BINFLOAT is big-endian
    case 0x8c:                                                                            // SHORT_BINUNICODE, SHORT_BINBYTES, SHORT_BINSTRING
    case 'C':
    case 'U': return push(text(unsigned_number(1)));
    case 'X':  // BINUNICODE, BINBYTES, BINSTRING
    case 'B':
    case 'T': return push(text(unsigned_number(4)));
    case 0x8d:  // BINUNICODE8, BINBYTES8
    case 0x8e: return push(text(unsigned_number(8)));
    default: return false;
  }
}

bool Unpickler::execute_container(unsigned char opcode) {
  const auto tuple = [this](std::size_t count) {
    std::vector<PickleNode*> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    stack_.push_back(make(PickleSequence{std::move(items), true}));
    return true;
  };
  switch (opcode) {
    case '(': marks_.push_back(stack_.size()); return true;
    case '}': stack_.push_back(make(PickleDict())); return true;
    case ']': stack_.push_back(make(PickleSequence())); return true;
    case ')': return tuple(0);
    case 0x85: return tuple(1);
    case 0x86: return tuple(2);
    case 0x87: return tuple(3);
    case 't':
    case 'l': stack_.push_back(make(PickleSequence{pop_to_mark(), opcode == 't'})); return true;
    case 'd': {
      const std::vector<PickleNode*> items = pop_to_mark();
      stack_.push_back(make(PickleDict()));
      set_items(items);
      return true;
    }
    case 'a': append(std::array{pop()}); return true;
    case 'e': append(pop_to_mark()); return true;
    case 's': {
      PickleNode *value = pop(), *key = pop();
      set_items(std::array{key, value});
      return true;
    }
    case 'u': set_items(pop_to_mark()); return true;
    default: return false;
  }
}

void Unpickler::memo_put(std::uint64_t slot) { memo_[slot] = &top(); }

void Unpickler::memo_get(std::uint64_t slot) {
  const auto found = memo_.find(slot);
  if (found == memo_.end()) throw Error(fmt::format("the pickle is malformed: it recalls slot {} that holds nothing", slot));
  stack_.push_back(found->second);
}

void Unpickler::append(std::span<PickleNode* const> items) {
  auto* list = std::get_if<PickleSequence>(&top().value);
  if (!list || list->tuple) throw Error("the pickle is malformed: it appends to what is no list");
  list->items.insert(list->items.end(), items.begin(), items.end());
}

void Unpickler::set_items(std::span<PickleNode* const> items) {
  auto* dict = std::get_if<PickleDict>(&top().value);
  if (!dict || items.size() % 2 != 0) throw Error("the pickle is malformed: it sets items of what is no dict, or a key without a value");
  for (std::size_t i = 0; i < items.size(); i += 2) dict->items.emplace_back(items[i], items[i + 1]);
}

void Unpickler::reduce() {
  const PickleNode *arguments = pop(), *callable = pop();
  const auto& sequence = expect<PickleSequence>(*arguments, "tuple of arguments");
  stack_.push_back(call(expect<PickleCallable>(*callable, "class or function"), sequence.items));
}

void Unpickler::build() {
  pop();
  // The one state that torch.save writes: attributes of an OrderedDict (_metadata of a state dict), which are no data.
  const auto* dict = std::get_if<PickleDict>(&top().value);
  if (!dict || !dict->ordered) throw Error("the pickle sets the state of an object that is no OrderedDict");
}

PickleNode* Unpickler::call(const PickleCallable& callable, const std::vector<PickleNode*>& arguments) {
  const auto need = [&](std::size_t least) {
    if (arguments.size() < least) throw Error("the pickle is malformed: a call lacks arguments");
  };
  switch (callable.what) {
    case ordered_dict: {
      PickleDict dict{.items = {}, .ordered = true};
      if (arguments.empty()) return make(std::move(dict));
      for (const PickleNode* pair : expect<PickleSequence>(*arguments[0], "list of pairs").items) {
        const auto& items = expect<PickleSequence>(*pair, "pair").items;
        if (items.size() != 2) throw Error("the pickle is malformed: an OrderedDict of what are no pairs");
        dict.items.emplace_back(items[0], items[1]);
      }
      return make(std::move(dict));
    }
    case rebuild_tensor: {  // (storage, offset, size, stride, requires_grad, backward_hooks[, metadata])
      need(5);
      PickleTensor tensor{&expect<PickleStorage>(*arguments[0], "storage"), expect<std::int64_t>(*arguments[1], "offset"),
                          expect_sizes(*arguments[2]), expect_sizes(*arguments[3])};
      check_extent(tensor);
      return make(std::move(tensor));
    }
    case rebuild_parameter: need(1); return make(PickleTensor(expect<PickleTensor>(*arguments[0], "tensor")));
    case torch_size: need(1); return make(PickleSequence{expect<PickleSequence>(*arguments[0], "tuple").items, true});
    case encode:
      need(2);
      if (const std::string& encoding = expect<std::string>(*arguments[1], "encoding"); encoding != "latin1")
        throw Error("bytes in encoding " + encoding);
      return make(latin1_of_utf8(expect<std::string>(*arguments[0], "text")));
    case bytes:
      if (!arguments.empty()) throw Error("the pickle is malformed: bytes() with arguments");
      return make(std::string());
    case storage_type: break;
  }
  throw Error("the pickle is malformed: it calls a storage class");
}

PickleNode* Unpickler::persistent(const PickleNode& id) {  // ("storage", type, key, location, number of elements)
  const auto& items = expect<PickleSequence>(id, "tuple of a storage").items;
  if (items.size() != 5 || expect<std::string>(*items[0], "kind of a storage") != "storage")
    throw Error("the pickle is malformed: an unknown persistent id");
  const auto& type = expect<PickleCallable>(*items[1], "class of a storage");
  if (type.what != storage_type) throw Error("the pickle is malformed: a storage of no storage class");
  const auto numel = expect<std::int64_t>(*items[4], "length of a storage");
  if (numel < 0) throw Error("a storage of negative length");
  return make(PickleStorage{type, expect<std::string>(*items[2], "key of a storage"), numel});
}

PickleNode* Unpickler::global(const std::string& module, const std::string& name) {
  for (const GlobalRow& row : kGlobals)
    if (row.module == module && row.name == name) return make(row.callable);
  throw Error(
      fmt::format("it holds a {}.{}, and only dicts, lists, numbers, strings and tensors are read; no code of the file was run", module, name));
}

}  // namespace uvit
