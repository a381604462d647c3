// The emulator's own tests: what the operations of a warp compute, against layouts written out by hand from the PTX ISA.
#include <catch2/catch.hpp>

#include "cuda_on_cpu/emulator.h"
#include "cuda_on_cpu/self/kernels.h"

namespace uvit::cuda::self {
namespace {

using emulator::Buffer;

struct Place {
  int lane, reg, half, row, column;
};

/// Lane and register that hold the element of C at (row, column): C's layout is the same for all products.
float element_of_c(const Fragments& f, int row, int column) { return f.c[(row % 8) * 4 + column / 2][2 * (row / 8) + column % 2]; }

template <class T>
std::uint32_t in_half(float value, int half) {
  return static_cast<std::uint32_t>(arch::from_float<T>(value).bits) << (16 * half);
}

TEST_CASE("CUDA emulator: where mma.m16n8k16 has its elements", "[cuda][races]") {
  // One element of A is 2, and B[k][n] = 1 + n at the k under test and 0 elsewhere: C shows the row of A in its row, and its column by being other than 0.
  const Place a_places[] = {{0, 0, 0, 0, 0},  {0, 0, 1, 0, 1},  {0, 1, 0, 8, 0},   {0, 2, 0, 0, 8},    {0, 3, 1, 8, 9},
                            {6, 1, 1, 9, 5},  {7, 2, 0, 1, 14}, {13, 0, 1, 3, 3},  {22, 3, 0, 13, 12}, {31, 3, 1, 15, 15}};
  // B by lane, register and half: row k, column n.
  const Place b_places[] = {{0, 0, 0, 0, 0}, {0, 0, 1, 1, 0}, {0, 1, 0, 8, 0}, {9, 1, 0, 10, 2}, {14, 0, 1, 5, 3}, {31, 1, 1, 15, 7}};
  for (Product product : {Product::bf16, Product::f16})
    for (const Place& at : a_places) {
      Fragments f;
      const auto encode = [&](float x, int half) { return product == Product::bf16 ? in_half<bf16>(x, half) : in_half<f16>(x, half); };
      f.a[at.lane][at.reg] = encode(2, at.half);
      for (int n = 0; n < 8; ++n) f.b[4 * n + (at.column % 8) / 2][at.column / 8] = encode(static_cast<float>(1 + n), at.column % 2);
      f.c[0][0] = 100;  // added, not overwritten
      multiply_fragments(product, &f);
      for (int row = 0; row < 16; ++row)
        for (int n = 0; n < 8; ++n)
          REQUIRE(element_of_c(f, row, n) == static_cast<float>((row == at.row ? 2 * (1 + n) : 0) + (row == 0 && n == 0 ? 100 : 0)));
    }
  for (const Place& at : b_places) {
    Fragments f;
    f.b[at.lane][at.reg] = in_half<bf16>(3, at.half);
    for (int row = 0; row < 16; ++row)
      f.a[(row % 8) * 4 + (at.row % 8) / 2][row / 8 + 2 * (at.row / 8)] = in_half<bf16>(static_cast<float>(1 + row), at.row % 2);
    multiply_fragments(Product::bf16, &f);
    for (int row = 0; row < 16; ++row)
      for (int n = 0; n < 8; ++n) REQUIRE(element_of_c(f, row, n) == static_cast<float>(n == at.column ? 3 * (1 + row) : 0));
  }
}

TEST_CASE("CUDA emulator: where mma.m16n8k8 tf32 has its elements, and what it drops", "[cuda]") {
  const Place a_places[] = {{0, 0, 0, 0, 0}, {0, 1, 0, 8, 0}, {0, 2, 0, 0, 4}, {0, 3, 0, 8, 4}, {7, 2, 0, 1, 7}, {30, 1, 0, 15, 2}};
  for (const Place& at : a_places) {
    Fragments f;
    f.a[at.lane][at.reg] = arch::to_tf32(2);
    for (int n = 0; n < 8; ++n) f.b[4 * n + at.column % 4][at.column / 4] = arch::to_tf32(static_cast<float>(1 + n));
    multiply_fragments(Product::tf32, &f);
    for (int row = 0; row < 16; ++row)
      for (int n = 0; n < 8; ++n) REQUIRE(element_of_c(f, row, n) == static_cast<float>(row == at.row ? 2 * (1 + n) : 0));
  }
  Fragments f;
  f.a[0][0] = std::bit_cast<std::uint32_t>(1 + 0x1p-10f + 0x1p-11f);  // 10 bits of fraction remain; the instruction cuts, to_tf32 rounds
  f.b[0][0] = arch::to_tf32(1);
  multiply_fragments(Product::tf32, &f);
  CHECK(f.c[0][0] == 1 + 0x1p-10f);
  CHECK(arch::to_tf32(1 + 0x1p-11f) == std::bit_cast<std::uint32_t>(1 + 0x1p-10f));  // a tie goes away from 0
  CHECK(arch::to_tf32(-1 - 0x1p-12f) == std::bit_cast<std::uint32_t>(-1.0f));
}

TEST_CASE("CUDA emulator: ldmatrix gives rows, .trans columns", "[cuda][races]") {
  Buffer<std::uint16_t> matrices("matrices", 4 * 64);
  for (int i = 0; i < 256; ++i) matrices[static_cast<std::size_t>(i)] = static_cast<std::uint16_t>(1000 * (i / 64) + 10 * (i % 64 / 8) + i % 8);
  Buffer<std::uint32_t> out("out", 128);
  const auto halves = [&](std::size_t lane, std::size_t reg) { return std::pair(out[4 * lane + reg] & 0xffff, out[4 * lane + reg] >> 16); };
  using Halves = std::pair<std::uint32_t, std::uint32_t>;
  load_matrices(matrices.data(), out.data(), false, false);
  CHECK(halves(0, 0) == Halves{0, 1});
  CHECK(halves(5, 0) == Halves{12, 13});        // row 1, columns 2 and 3
  CHECK(halves(31, 3) == Halves{3076, 3077});   // row 7, columns 6 and 7 of the last matrix
  CHECK(halves(18, 2) == Halves{2044, 2045});
  load_matrices(matrices.data(), out.data(), true, false);
  CHECK(halves(0, 0) == Halves{0, 10});
  CHECK(halves(5, 0) == Halves{21, 31});        // column 1, rows 2 and 3
  CHECK(halves(31, 3) == Halves{3067, 3077});
  load_matrices(matrices.data(), out.data(), false, true);
  CHECK(halves(18, 1) == Halves{1044, 1045});
  load_matrices(matrices.data(), out.data(), true, true);
  CHECK(halves(18, 1) == Halves{1044, 1054});   // column 4, rows 4 and 5
}

TEST_CASE("CUDA emulator: a product through cp.async, ldmatrix and mma", "[cuda][races]") {
  Buffer<bf16> a("a", 256), b("b", 128);
  Buffer<float> c("c", 128);
  for (int i = 0; i < 256; ++i) a[static_cast<std::size_t>(i)] = arch::from_float<bf16>(static_cast<float>(i % 7 - 3));
  for (int i = 0; i < 128; ++i) b[static_cast<std::size_t>(i)] = arch::from_float<bf16>(static_cast<float>(i % 5 - 2));
  for (std::uint32_t seed = 0; seed < 4; ++seed) {
    emulator::Settings settings;
    settings.seed = seed;
    emulator::Scope scope(settings);
    multiply(a.data(), b.data(), c.data());
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += static_cast<float>((16 * m + k) % 7 - 3) * static_cast<float>((16 * n + k) % 5 - 2);
        REQUIRE(c[static_cast<std::size_t>(8 * m + n)] == sum);
      }
    CHECK(scope.counters().mma == 1);
    CHECK(scope.counters().ldmatrix == 2);
    CHECK(scope.counters().async_copies == 48);
  }
}

TEST_CASE("CUDA emulator: shuffles and votes", "[cuda][races]") {
  Buffer<float> in("in", 32), out("out", 66);
  for (int i = 0; i < 32; ++i) in[static_cast<std::size_t>(i)] = static_cast<float>(i);
  shuffle(in.data(), out.data(), 5, 17, 30.5f);
  for (int i = 0; i < 32; ++i) {
    CHECK(out[static_cast<std::size_t>(i)] == static_cast<float>(i ^ 5));
    CHECK(out[static_cast<std::size_t>(32 + i)] == 17);
  }
  CHECK(out[64] == 1);
  CHECK(out[65] == 0);
  shuffle(in.data(), out.data(), 16, 0, -1);
  CHECK(out[3] == 19);
  CHECK(out[64] == 1);
  CHECK(out[65] == 1);
  shuffle(in.data(), out.data(), 1, 31, 31);
  CHECK(out[64] == 0);
  CHECK(out[65] == 0);
}

TEST_CASE("CUDA emulator: indices of blocks and threads", "[cuda][races]") {
  Buffer<int> out("out", 12 * 64 * 5);
  emulator::Scope scope({});
  number_threads(out.data());
  CHECK(scope.counters().blocks == 12);
  for (int z = 0, i = 0; z < 2; ++z)
    for (int y = 0; y < 3; ++y)
      for (int x = 0; x < 2; ++x)
        for (int thread = 0; thread < 64; ++thread, i += 5) {
          const auto at = static_cast<std::size_t>(i);
          REQUIRE(std::vector<int>(&out[at], &out[at] + 5) == std::vector<int>{x, y, z, thread, 264});
        }
}

}  // namespace
}  // namespace uvit::cuda::self
