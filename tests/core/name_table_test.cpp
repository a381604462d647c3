#include "core/name_table.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "support/scratch.h"

using namespace uvit;

TEST_CASE("nearest_name finds what was meant and stays silent where nothing is near") {
  const std::vector<std::string> names = {"softmax", "cog", "sda", "num_heads", "dpm_solver_pp_2m"};
  CHECK(nearest_name("sofmax", names) == "softmax");
  CHECK(nearest_name("Softmax", names) == "softmax");
  CHECK(nearest_name("numheads", names) == "num_heads");
  CHECK(nearest_name("cgo", names) == "cog");  // a swap is one edit
  CHECK(nearest_name("sum", names).empty());   // two edits of three letters could be anything
  CHECK(nearest_name("cogs", names) == "cog");
  CHECK(nearest_name("dpm_solver", names) == "dpm_solver_pp_2m");
  CHECK(nearest_name("transformer", names).empty());
  CHECK(nearest_name("", names).empty());
  CHECK(nearest_name(std::string(100000, 'x'), names).empty());
  CHECK(nearest_name("cog", {}).empty());
}

TEST_CASE("find_row returns the row, or names all rows and the nearest") {
  struct Row {
    std::string name;
    int value;
  };
  static const std::vector<Row> table = {{"euler", 1}, {"ddim", 2}};
  CHECK(find_row<Row>(table, "solver", "ddim").value == 2);
  CHECK(test::error_of([&] { find_row<Row>(table, "solver", "eulr"); }) == "unknown solver 'eulr': did you mean 'euler'? There are: euler, ddim");
  CHECK(test::error_of([&] { find_row<Row>(table, "solver", "heun"); }) == "unknown solver 'heun': There are: euler, ddim");
}
