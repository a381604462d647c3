#include "io/event_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"

namespace uvit {
namespace {

/// The wire format of protocol buffers, as much of it as an Event needs. Field numbers are those of TensorFlow's event.proto, summary.proto,
/// tensor.proto and tensor_shape.proto.
class Message {
 public:
  Message& varint(int field, std::uint64_t value) {
    key(field, 0);
    raw_varint(value);
    return *this;
  }
  Message& fixed64(int field, double value) {
    key(field, 1);
    little_endian(std::bit_cast<std::uint64_t>(value), 8);
    return *this;
  }
  Message& fixed32(int field, float value) {
    key(field, 5);
    little_endian(std::bit_cast<std::uint32_t>(value), 4);
    return *this;
  }
  Message& bytes(int field, std::string_view value) {
    key(field, 2);
    raw_varint(value.size());
    text_ += value;
    return *this;
  }
  Message& message(int field, const Message& value) { return bytes(field, value.text_); }
  const std::string& text() const { return text_; }

 private:
  void key(int field, int wire_type) { raw_varint(static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(wire_type)); }
  void raw_varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
  }
  void little_endian(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_ += static_cast<char>(value >> (8 * i));
  }
  std::string text_;
};

double wall_time() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

std::string event_of(std::int64_t step, const Message& value) {
  Message event;
  event.fixed64(1, wall_time()).varint(2, static_cast<std::uint64_t>(step)).message(5, Message().message(1, value));
  return event.text();
}

/// metadata.plugin_data.plugin_name of a summary value
Message plugin(std::string_view name) { return Message().message(1, Message().bytes(1, name)); }

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 && name[0] ? name.data() : "localhost";
}

/// Opens a file that no other has: two runs may start in one folder in the same second.
int open_new(std::filesystem::path& path) {
  const std::string base = path.string();
  for (int number = 1;; ++number) {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0) return descriptor;
    if (errno != EEXIST) throw Error(fmt::format("cannot write {}: {}", path.string(), std::strerror(errno)));
    path = fmt::format("{}.{}", base, number);
  }
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder) {
  make_directories(folder);
  path_ = folder / fmt::format("events.out.tfevents.{:010}.{}.{}", static_cast<std::int64_t>(wall_time()), host_name(), ::getpid());
  descriptor_ = open_new(path_);
  try {
    write_record(Message().fixed64(1, wall_time()).bytes(3, "brain.Event:2").text());
  } catch (...) {
    ::close(descriptor_);
    ::unlink(path_.c_str());
    throw;
  }
}

EventFile::~EventFile() { ::close(descriptor_); }

void EventFile::write_record(const std::string& event) {
  const std::uint64_t size = event.size();
  const auto append = [](std::string& record, const auto& number) { record.append(reinterpret_cast<const char*>(&number), sizeof number); };
  std::string record;
  append(record, size);
  append(record, masked_crc32c(std::as_bytes(std::span(&size, 1))));
  record += event;
  append(record, masked_crc32c(std::as_bytes(std::span(event))));
  const off_t before = ::lseek(descriptor_, 0, SEEK_CUR);
  try {
    write_all(descriptor_, std::as_bytes(std::span(record)), path_);
  } catch (const Error&) {
    // A reader stops at half a record, and would never see what follows it.
    if (before >= 0 && ::ftruncate(descriptor_, before) == 0) ::lseek(descriptor_, before, SEEK_SET);
    throw;
  }
}

void EventFile::add_scalar(const std::string& tag, std::int64_t step, double value) {
  write_record(event_of(step, Message().bytes(1, tag).fixed32(2, static_cast<float>(value))));
}

void EventFile::add_image(const std::string& tag, std::int64_t step, std::span<const std::byte> png, int height, int width, int channels) {
  Message image;
  image.varint(1, static_cast<std::uint64_t>(height)).varint(2, static_cast<std::uint64_t>(width)).varint(3, static_cast<std::uint64_t>(channels));
  image.bytes(4, std::string_view(reinterpret_cast<const char*>(png.data()), png.size()));
  write_record(event_of(step, Message().bytes(1, tag).message(4, image)));
}

void EventFile::add_text(const std::string& tag, std::int64_t step, const std::string& text) {
  constexpr std::uint64_t kString = 7;  // DT_STRING
  const Message shape = Message().message(2, Message().varint(1, 1));
  const Message tensor = Message().varint(1, kString).message(2, shape).bytes(8, text);
  write_record(event_of(step, Message().bytes(1, tag).message(8, tensor).message(9, plugin("text"))));
}

}  // namespace uvit
