#include "io/event_file.h"

#include <catch2/catch.hpp>
#include <cstring>

#include "core/atomic_file.h"
#include "core/hash.h"
#include "support/scratch.h"

using namespace uvit;
using Catch::Contains;
using namespace std::string_literals;

namespace {

/// The events of a file, every checksum verified.
std::vector<std::string> records(const std::filesystem::path& path) {
  const std::string content = read_file(path);
  std::vector<std::string> events;
  for (std::size_t at = 0; at < content.size();) {
    REQUIRE(content.size() - at >= 16);
    std::uint64_t size = 0;
    std::uint32_t size_crc = 0, crc = 0;
    std::memcpy(&size, content.data() + at, 8);
    std::memcpy(&size_crc, content.data() + at + 8, 4);
    REQUIRE(size_crc == masked_crc32c(std::as_bytes(std::span(&size, 1))));
    REQUIRE(content.size() - at - 16 >= size);
    events.push_back(content.substr(at + 12, size));
    std::memcpy(&crc, content.data() + at + 12 + size, 4);
    REQUIRE(crc == masked_crc32c(std::as_bytes(std::span(events.back()))));
    at += 16 + size;
  }
  return events;
}

}  // namespace

TEST_CASE("an event file is a sequence of whole records from the first write on") {
  const test::ScratchFolder folder;
  EventFile file(folder.path());
  CHECK_THAT(file.path().filename().string(), Catch::Matches("events\\.out\\.tfevents\\.[0-9]{10,}\\..+\\.[0-9]+"));
  REQUIRE(records(file.path()).size() == 1);
  CHECK_THAT(records(file.path())[0], Contains("brain.Event:2"));
  file.add_scalar("train/loss", 3, 0.5);
  const std::string event = records(file.path()).at(1);
  // After the time (9 bytes): step 3, then summary { value { tag "train/loss", simple_value 0.5 } }.
  CHECK(event.substr(9) == "\x10\x03\x2a\x13\x0a\x11\x0a\x0atrain/loss\x15\x00\x00\x00\x3f"s);
  const EventFile second(folder.path());  // the same second and process
  CHECK(second.path() != file.path());
  CHECK(records(second.path()).size() == 1);
}

TEST_CASE("times never run backwards: a file goes on where the last one in the folder ended, though that was tomorrow") {
  const test::ScratchFolder folder;
  const auto time_of = [](const std::string& event) {
    double time = 0;
    std::memcpy(&time, event.data() + 1, sizeof time);
    return time;
  };
  double before = 0;
  for (int file = 0; file < 3; ++file) {
    EventFile events(folder.path());
    events.add_scalar("a", file, 0);
    for (const std::string& event : records(events.path())) {
      CHECK(time_of(event) >= before);
      before = time_of(event);
    }
    if (file > 0) continue;
    // The first file is made one of the year 2128, by its name and by the time in its last record.
    const double tomorrow = before = 5e9;
    std::string content = read_file(events.path());
    const std::size_t last = content.size() - 4 - records(events.path())[1].size();
    std::memcpy(content.data() + last + 1, &tomorrow, sizeof tomorrow);
    write_file(folder / "events.out.tfevents.5000000000.host.1", content);
    std::filesystem::remove(events.path());
  }
  CHECK(before < 5e9 + 60);
}

TEST_CASE("a write that fails says so and leaves no half record; a later one goes on") {
  const test::ScratchFolder folder;
  EventFile file(folder.path());
  file.add_text("note", 0, "before");
  {
    const test::FileSizeLimit limit(500);
    CHECK_THAT(test::error_of([&] { file.add_text("note", 1, std::string(1000, 'x')); }), Contains(file.path().string() + ": File too large"));
  }
  CHECK(records(file.path()).size() == 2);
  file.add_text("note", 2, "after");
  CHECK(records(file.path()).size() == 3);
}

TEST_CASE("an event file that cannot be made says so") {
  const test::ScratchFolder folder;
  write_file(folder / "file", "x");
  CHECK_THAT(test::error_of([&] { EventFile(folder / "file"); }), Contains((folder / "file").string()) && Contains("cannot make the folder"));
  {
    const test::FileSizeLimit limit(10);
    CHECK_THAT(test::error_of([&] { EventFile(folder.path()); }), Contains("File too large"));
  }
  CHECK(folder.entries() == 1);
  const EventFile file(folder / "new/run");
  CHECK(records(file.path()).size() == 1);
}
