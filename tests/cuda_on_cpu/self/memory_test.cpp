// The emulator's own tests: asynchronous copies, fresh shared memory, bank conflicts.
#include <catch2/catch.hpp>
#include <cmath>

#include "cuda_on_cpu/emulator.h"
#include "cuda_on_cpu/self/kernels.h"

namespace uvit::cuda::self {
namespace {

using emulator::Buffer;

TEST_CASE("CUDA emulator: the data of a copy is there after its wait and not before", "[cuda]") {
  Buffer<float> in("in", 256), out("out", 192);
  for (int i = 0; i < 256; ++i) in[static_cast<std::size_t>(i)] = static_cast<float>(1 + i);
  copy(in.data(), out.data(), 20);
  for (std::size_t lane = 0; lane < 32; ++lane) {
    const float first = lane < 20 ? static_cast<float>(1 + 4 * lane) : 0, second = lane < 20 ? static_cast<float>(129 + 4 * lane) : 0;
    CHECK(std::isnan(out[lane]));  // both are under way
    CHECK(std::isnan(out[32 + lane]));
    CHECK(out[64 + lane] == first);  // wait<1>: the older has come
    CHECK(std::isnan(out[96 + lane]));
    CHECK(out[128 + lane] == first);
    CHECK(out[160 + lane] == second);
  }
}

TEST_CASE("CUDA emulator: a block finds NaN in shared memory and in new buffers", "[cuda]") {
  Buffer<float> out("out", 300);
  for (float x : out.values()) CHECK(std::isnan(x));
  for (std::size_t i = 0; i < 300; ++i) out[i] = 0;
  read_fresh(out.data(), 300);
  for (float x : out.values()) CHECK(std::isnan(x));  // of three blocks, each of which wrote to it: nothing goes from one to the next
}

struct Conflicts {
  std::uint64_t passes, conflicts;
};
template <class Kernel>
Conflicts count(Kernel kernel) {
  emulator::Scope scope({});
  kernel();
  return {scope.counters().shared_wavefronts, scope.counters().bank_conflicts};
}

TEST_CASE("CUDA emulator: bank conflicts of stores", "[cuda]") {
  // 32 banks of 4 bytes. 4-byte stores of a warp go at once, 8-byte ones by 16 lanes, 16-byte ones by 8.
  struct Case {
    int stride, words;
    std::uint64_t passes, conflicts;
  };
  const Case cases[] = {
      {4, 1, 1, 0},     {8, 1, 2, 1},     {128, 1, 32, 31}, {132, 1, 1, 0},   // 33 words apart: each lane has a bank of its own
      {8, 2, 2, 0},     {128, 2, 32, 30},                                     // two passes of 16 lanes on the same two banks
      {16, 4, 4, 0},    {128, 4, 32, 28}, {144, 4, 4, 0},   {64, 4, 16, 12},  // rows of 64 bytes: lanes 0, 2, 4, 6 meet
  };
  for (const Case& c : cases) {
    const Conflicts found = count([&] { store_stride(c.stride, c.words); });
    INFO("stride " << c.stride << ", words " << c.words);
    CHECK(found.passes == c.passes);
    CHECK(found.conflicts == c.conflicts);
  }
}

TEST_CASE("CUDA emulator: bank conflicts of ldmatrix, 8 rows at a time", "[cuda]") {
  CHECK(count([] { ldmatrix_stride(16); }).conflicts == 0);
  CHECK(count([] { ldmatrix_stride(144); }).conflicts == 0);
  CHECK(count([] { ldmatrix_stride(128); }).conflicts == 28);  // 4 matrices of 8 rows on the same four banks
  emulator::Scope scope({});
  ldmatrix_stride(64);
  CHECK(scope.counters().bank_conflicts == 12);
  REQUIRE(scope.counters().conflicts_by_site.size() == 1);
  CHECK(scope.counters().conflicts_by_site.begin()->first.find("kernels.cpp:") == 0);
}

}  // namespace
}  // namespace uvit::cuda::self
