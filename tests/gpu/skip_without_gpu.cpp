// Before the first test: without a usable GPU the whole program is skipped (ctest's SKIP_RETURN_CODE), and says why.
#include <torch/torch.h>

#define CATCH_CONFIG_EXTERNAL_INTERFACES // for a listener
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>

#include "attention/device.h"
#include "core/error.h"

namespace {

struct SkipWithoutGpu : Catch::TestEventListenerBase {
  using TestEventListenerBase::TestEventListenerBase;
  void testRunStarting(const Catch::TestRunInfo&) override {
    try {
      uvit::select_device("cuda");
    } catch (const uvit::Error& error) {
      std::printf("SKIPPED: %s\n", error.what());
      std::fflush(stdout);
      std::_Exit(77);
    }
  }
};
CATCH_REGISTER_LISTENER(SkipWithoutGpu)

}  // namespace
