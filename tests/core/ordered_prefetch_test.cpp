#include "core/ordered_prefetch.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <stdexcept>

using namespace uvit;

TEST_CASE("results come in order whatever thread is first, and no more are made ahead than asked for", "[threads]") {
  std::atomic<std::int64_t> given{0}, starts{0}, too_far{0};
  const std::int64_t count = 60, ahead = 5;
  OrderedPrefetch<std::int64_t> queue(
      [&](std::int64_t number, std::int64_t& result) {
        if (number >= given + ahead) ++too_far;
        if (number % 3 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        result = 10 * number;
      },
      {3, ahead, count, [&] { ++starts; }});
  for (std::int64_t i = 0; i < count; ++i) {
    REQUIRE(queue.front().error == nullptr);
    REQUIRE(queue.front().value == 10 * i);
    ++given;  // before pop: makers may start the moment it is called
    queue.pop();
  }
  CHECK(starts == 3);
  CHECK(too_far == 0);
}

TEST_CASE("what a maker throws comes in its turn with what it had made, and stays the next result", "[threads]") {
  OrderedPrefetch<std::string> queue(
      [](std::int64_t number, std::string& result) {
        result = "begun";
        if (number == 1) throw std::runtime_error("broken");
      },
      {2, 4, 3, {}});
  CHECK(queue.front().error == nullptr);
  queue.pop();
  for (int i = 0; i < 2; ++i) {
    CHECK(queue.front().value == "begun");
    CHECK_THROWS_WITH(std::rethrow_exception(queue.front().error), "broken");
  }
  queue.pop();
  CHECK(queue.front().error == nullptr);
}

TEST_CASE("a queue that nobody empties ends when it is destroyed", "[threads]") {
  std::atomic<std::int64_t> made{0};
  {
    OrderedPrefetch<int> queue([&](std::int64_t, int&) { ++made; }, {2, 3});
    queue.front();
  }
  CHECK(made >= 1);
  CHECK(made <= 3);
}
