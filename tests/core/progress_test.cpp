#include "core/progress.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <functional>
#include <thread>

#include "core/atomic_file.h"
#include "core/cpu_info.h"
#include "core/version.h"
#include "support/scratch.h"

using namespace uvit;
using Catch::Contains;

namespace {

/// What `call` writes to stderr while that is a file.
std::string stderr_of(const std::function<void()>& call) {
  const test::ScratchFolder folder;
  const int saved = ::dup(STDERR_FILENO);
  const int file = ::open((folder / "stderr").c_str(), O_WRONLY | O_CREAT, 0600);
  ::dup2(file, STDERR_FILENO);
  call();
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  ::close(file);
  return read_file(folder / "stderr");
}

}  // namespace

TEST_CASE("progress is silent for short work and prints plain lines where stderr is no terminal") {
  CHECK(stderr_of([] {
          Progress progress("score", 10, "images");
          for (int i = 1; i <= 10; ++i) progress.update(i);
        }).empty());
  const std::string text = stderr_of([] {
    Progress progress("train", 100, "images", 40);
    std::this_thread::sleep_for(std::chrono::milliseconds(2050));
    progress.update(60, "loss 0.5");
    progress.update(61, "within five seconds of the last line");
    progress.update(100, "loss 0.25");
    progress.finish();
  });
  CHECK(std::count(text.begin(), text.end(), '\n') == 2);
  CHECK_THAT(text, Contains("train 60/100 (60 %)  9.") && Contains("images/s  ETA 0:04  loss 0.5\n"));  // 20 images in 2.05 s
  CHECK_THAT(text, Contains("train 100/100 (100 %)") && Contains("in 0:02  loss 0.25\n"));
  CHECK(text.find('\r') == std::string::npos);
}

TEST_CASE("format_duration") {
  CHECK(format_duration(0) == "0:00");
  CHECK(format_duration(59.6) == "1:00");
  CHECK(format_duration(245) == "4:05");
  CHECK(format_duration(3723) == "1:02:03");
  CHECK(format_duration(-1) == "?");
  CHECK(format_duration(0.0 / 0.0) == "?");
}

TEST_CASE("version, commit and processor are known") {
  CHECK_THAT(version(), Catch::Matches("[0-9]+\\.[0-9]+\\.[0-9]+"));
  CHECK_THAT(git_commit(), Catch::Matches("unknown|[0-9a-f]{7,40}(-dirty)?"));
  CHECK_FALSE(cpu_description().empty());
}
