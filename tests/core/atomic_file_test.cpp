#include "core/atomic_file.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "core/error.h"
#include "support/scratch.h"

using namespace uvit;
using Catch::Contains;

TEST_CASE("write_file replaces a file whole and read_file gives it back") {
  const test::ScratchFolder folder;
  const std::filesystem::path path = folder / "a.txt";
  write_file(path, "first");
  CHECK(read_file(path) == "first");
  const std::string large(100000, 'x');
  write_file(path, large);
  CHECK(read_file(path) == large);
  write_file(path, "");
  CHECK(read_file(path).empty());
  CHECK(folder.entries() == 1);
  CHECK(read_file("/proc/self/status").starts_with("Name:"));  // a file whose size the system gives as 0
}

TEST_CASE("a failed write leaves the old file, no temporary one, and says why") {
  const test::ScratchFolder folder;
  const std::filesystem::path path = folder / "a.txt";
  write_file(path, "old");
  {
    const test::FileSizeLimit limit(1000);
    CHECK_THAT(test::error_of([&] { write_file(path, std::string(5000, 'x')); }), Contains(path.string()) && Contains("File too large"));
  }
  CHECK(read_file(path) == "old");
  CHECK(folder.entries() == 1);
  CHECK_THROWS_AS(replace_file(path,
                               [](const std::filesystem::path& temporary) {
                                 write_file(temporary, "half");
                                 throw std::logic_error("stopped");
                               }),
                  std::logic_error);
  CHECK(read_file(path) == "old");
  CHECK(folder.entries() == 1);
  CHECK_THAT(test::error_of([&] { write_file(folder / "none/b.txt", "x"); }), Contains("none/b.txt") && Contains("No such file"));
  CHECK_THAT(test::error_of([&] { write_file(folder.path(), "x"); }), Contains("it is a folder or a device"));
  CHECK_THAT(test::error_of([&] { write_file("/dev/null", "x"); }), Contains("it is a folder or a device"));
}

TEST_CASE("what killed writers left is removed, and nothing else") {
  const test::ScratchFolder folder;
  const pid_t gone = ::fork();
  if (gone == 0) ::_exit(0);
  REQUIRE(::waitpid(gone, nullptr, 0) == gone);
  const std::string left = ".tmp-" + std::to_string(gone) + "-3", at_work = ".tmp-" + std::to_string(::getpid()) + "-0";
  for (const std::string& name : {"status.json" + left, "a" + left, "status.json" + at_work, std::string("status.json"), "b.tmp-" + std::to_string(gone),
                                  "c" + left + "x", std::string("d.tmp-0-0"), std::string("e.tmp-99999999999-1")})
    write_file(folder / name, "x");
  std::filesystem::create_directory(folder / ("folder" + left));
  remove_temporaries(folder.path());
  CHECK_FALSE(std::filesystem::exists(folder / ("status.json" + left)));
  CHECK_FALSE(std::filesystem::exists(folder / ("a" + left)));
  CHECK(folder.entries() == 7);
  remove_temporaries(folder / "none");
}

TEST_CASE("a full disk is named") {
  if (::access("/dev/full", W_OK) != 0) return;
  CHECK_THAT(test::error_of([&] { append_line("/dev/full", "x"); }), Contains("/dev/full: No space left on device; free some space"));
}

TEST_CASE("append_line adds whole lines only") {
  const test::ScratchFolder folder;
  const std::filesystem::path path = folder / "log.jsonl";
  append_line(path, "{\"a\": 1}");
  append_line(path, "{\"b\": 2}");
  CHECK(read_file(path) == "{\"a\": 1}\n{\"b\": 2}\n");
  {
    const test::FileSizeLimit limit(20);
    CHECK_THAT(test::error_of([&] { append_line(path, "{\"c\": 3}"); }), Contains("File too large"));
  }
  CHECK(read_file(path) == "{\"a\": 1}\n{\"b\": 2}\n");
}

TEST_CASE("read_file and make_directories say what is wrong") {
  const test::ScratchFolder folder;
  CHECK_THAT(test::error_of([&] { read_file(folder / "missing"); }), Contains("missing: No such file"));
  CHECK_THAT(test::error_of([&] { read_file(folder.path()); }), Contains("Is a directory"));
  make_directories(folder / "a/b/c");
  CHECK(std::filesystem::is_directory(folder / "a/b/c"));
  make_directories(folder / "a/b/c");
  write_file(folder / "file", "x");
  CHECK_THAT(test::error_of([&] { make_directories(folder / "file"); }), Contains("file"));
  CHECK_THAT(test::error_of([&] { make_directories(folder / "file/below"); }), Contains("file/below"));
  CHECK_THAT(test::error_of([&] { sync_path(folder / "missing"); }), Contains("missing"));
}
