#include "io/event_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"

namespace uvit {
namespace {

// The wire format of protocol buffers, as far as Event needs it. Field numbers are those of TensorFlow's event.proto, summary.proto and tensor.proto.
void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_integer(std::string& out, int field, std::int64_t value) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3);
  put_varint(out, static_cast<std::uint64_t>(value));
}
template <class Bits>
void put_fixed(std::string& out, int field, int wire_type, Bits bits) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3 | static_cast<unsigned>(wire_type));
  for (std::size_t i = 0; i < sizeof bits; ++i) out += static_cast<char>(bits >> (8 * i));
}
void put_double(std::string& out, int field, double value) { put_fixed(out, field, 1, std::bit_cast<std::uint64_t>(value)); }
void put_float(std::string& out, int field, float value) { put_fixed(out, field, 5, std::bit_cast<std::uint32_t>(value)); }
void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3 | 2);
  put_varint(out, bytes.size());
  out += bytes;
}

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

/// Event{wall_time, step, summary{value}}
std::string summary_event(std::int64_t step, const std::string& value) {
  std::string summary, event;
  put_bytes(summary, 1, value);
  put_double(event, 1, now());
  put_integer(event, 2, step);
  put_bytes(event, 5, summary);
  return event;
}

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text.data(), text.size())); }

template <class Bits>
void put_little_endian(std::string& out, Bits bits) {
  for (std::size_t i = 0; i < sizeof bits; ++i) out += static_cast<char>(bits >> (8 * i));
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder) {
  make_directories(folder);
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  const auto seconds = static_cast<std::int64_t>(now());
  // A run resumed within the second it was stopped in gets a file of its own.
  for (int n = 0; descriptor_ < 0; ++n) {
    path_ = folder / fmt::format("events.out.tfevents.{}.{}.{}{}", seconds, host, getpid(), n ? fmt::format(".{}", n) : "");
    descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    if (descriptor_ < 0 && errno != EEXIST) throw Error(fmt::format("{}: cannot be written ({})", path_.string(), std::strerror(errno)));
  }
  std::string event;
  put_double(event, 1, now());
  put_bytes(event, 3, "brain.Event:2");  // file_version
  try {
    write_record(event);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

EventFile::~EventFile() { ::close(descriptor_); }

void EventFile::add_scalar(const std::string& tag, std::int64_t step, double value) {
  std::string entry;
  put_bytes(entry, 1, tag);
  put_float(entry, 2, static_cast<float>(value));
  write_record(summary_event(step, entry));
}

void EventFile::add_image(const std::string& tag, std::int64_t step, std::span<const std::byte> png, int height, int width, int channels) {
  std::string image, entry;
  put_integer(image, 1, height);
  put_integer(image, 2, width);
  put_integer(image, 3, channels);
  put_bytes(image, 4, {reinterpret_cast<const char*>(png.data()), png.size()});
  put_bytes(entry, 1, tag);
  put_bytes(entry, 4, image);
  write_record(summary_event(step, entry));
}

void EventFile::add_text(const std::string& tag, std::int64_t step, const std::string& text) {
  constexpr int kDtString = 7;
  std::string plugin, metadata, dimension, shape, tensor, entry;
  put_bytes(plugin, 1, "text");
  put_bytes(metadata, 1, plugin);
  put_integer(dimension, 1, 1);
  put_bytes(shape, 2, dimension);
  put_integer(tensor, 1, kDtString);
  put_bytes(tensor, 2, shape);
  put_bytes(tensor, 8, text);
  put_bytes(entry, 1, tag + "/text_summary");
  put_bytes(entry, 8, tensor);
  put_bytes(entry, 9, metadata);
  write_record(summary_event(step, entry));
}

/// TFRecord: length, its masked CRC, the data, its masked CRC.
void EventFile::write_record(const std::string& event) {
  std::string record;
  put_little_endian(record, static_cast<std::uint64_t>(event.size()));
  put_little_endian(record, masked_crc32c(as_bytes(record)));
  record += event;
  put_little_endian(record, masked_crc32c(as_bytes(event)));
  write_all(descriptor_, as_bytes(record), path_);
}

}  // namespace uvit
