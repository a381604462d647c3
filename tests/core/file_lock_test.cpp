#include "core/file_lock.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

#include "core/atomic_file.h"
#include "support/scratch.h"

using namespace uvit;

TEST_CASE("a locked file is refused to others, names its holder, and is free when the lock goes") {
  const test::ScratchFolder folder;
  const auto path = folder / "lock";
  CHECK_FALSE(is_locked(path));
  {
    std::optional<FileLock> held = FileLock::try_lock(path);
    REQUIRE(held);
    held->write("a longer text than the next");
    held->write("process 7\n");
    const FileLock moved = std::move(*held);
    held.reset();
    CHECK(is_locked(path));
    CHECK_FALSE(FileLock::try_lock(path));
    CHECK(read_file(path) == "process 7\n");
  }
  CHECK_FALSE(is_locked(path));
  CHECK(FileLock::try_lock(path));
  CHECK_FALSE(test::error_of([&] { FileLock::try_lock(folder / "nowhere/lock"); }).empty());
}

TEST_CASE("the lock of a killed process is free, though its file is there") {
  const test::ScratchFolder folder;
  const auto path = folder / "lock";
  const pid_t child = fork();
  if (child == 0) {
    const auto held = FileLock::try_lock(path);
    while (true) pause();
  }
  for (int i = 0; i < 5000 && !is_locked(path); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(is_locked(path));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  CHECK_FALSE(is_locked(path));
  CHECK(std::filesystem::exists(path));
}
