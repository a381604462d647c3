// Would the tests of the attention kernels see it if the kernels were wrong? Every call of an arch function is broken in turn (faults.h): each wait and
// barrier left out, each mask, each pair of fragment registers swapped, each access moved past shared memory. For each at least one of the problems
// below must end in an emulator error, in a race, or in a result that is far off.
#include <fstream>

#include "tests/cuda_on_cpu/attention/emulated_attention.h"

using namespace uvit::kernels;
using namespace uvit::test;
using uvit::cuda::emulator::EmulationError;
using uvit::cuda::emulator::FaultKind;
using uvit::cuda::emulator::FaultSite;
using uvit::cuda::emulator::Scope;
using uvit::cuda::emulator::Settings;

namespace {

struct Probe {
  Kind kind;
  Dtype dtype;
  Sizes sizes;
  bool causal;
  double sign_of_scale;
};

const std::vector<Probe> kProbes = {
    {Kind::cog, Dtype::bf16, {1, 1, 66, 130, 64, 64}, false, 1},       {Kind::cog, Dtype::bf16, {1, 1, 130, 130, 40, 64}, true, -1},
    {Kind::dipole, Dtype::f16, {1, 1, 66, 130, 64, 64}, true, 1},      {Kind::sda_weighted, Dtype::bf16, {2, 1, 66, 66, 128, 72}, true, 1},
    {Kind::softpick, Dtype::bf16, {1, 1, 66, 66, 64, 64}, false, 1},   {Kind::centered, Dtype::bf16, {1, 1, 66, 66, 64, 64}, true, 1},
    {Kind::cog, Dtype::f32, {1, 1, 66, 66, 64, 64}, true, -1},         {Kind::dipole, Dtype::f32, {1, 1, 66, 40, 64, 64}, false, 1},
    {Kind::sigmoid, Dtype::f32, {1, 1, 40, 66, 128, 128}, false, 1},
};

/// A probe, what is right, and where it can be broken.
struct Prepared {
  Dtype dtype;
  Reference problem, exact;
  std::vector<FaultSite> sites;
};

/// Far off: beyond any budget of the other tests.
bool is_far_off(Reference& value, Reference& exact) {
  const auto values = results_of(value), right = results_of(exact);
  for (std::size_t n = 0; n < right.size(); ++n)
    for (std::size_t i = 0; i < right[n].second->size(); ++i)
      if (!(std::abs((*values[n].second)[i] - (*right[n].second)[i]) <= 0.05 * max_abs(*right[n].second) + 1e-3)) return true;
  return false;
}

Prepared prepare(const Probe& probe) {
  Prepared p{probe.dtype, random_problem(probe.kind, probe.sizes, probe.causal, probe.dtype, 1), {}, {}};
  p.problem.scale *= probe.sign_of_scale;
  p.exact = p.problem;
  p.exact.forward();
  p.exact.backward();
  Settings settings;
  settings.record_sites = true;
  const Scope scope(settings);
  FusedRun run = emulate(p.problem, p.dtype, false);
  INFO(describe(p.problem, p.dtype));
  CHECK_FALSE(is_far_off(run.result, p.exact));
  p.sites = scope.counters().fault_sites;
  return p;
}

bool is_found(Prepared& p, const FaultSite& site) {
  Settings settings;
  settings.fault = {site.kind, site.site};
  const Scope scope(settings);
  try {
    FusedRun run = emulate(p.problem, p.dtype, false);
    return is_far_off(run.result, p.exact);
  } catch (const EmulationError&) {
    return true;
  }
}

/// The line of source that "file:line" names.
std::string source_line(const std::string& site) {
  const std::size_t colon = site.find(':');
  std::ifstream file(UVIT_SOURCE_DIR "/kernels/attention/cuda/" + site.substr(0, colon));
  std::string line;
  for (int n = std::stoi(site.substr(colon + 1)); n > 0; --n) std::getline(file, line);
  line.erase(0, line.find_first_not_of(' '));
  return line;
}

/// Calls whose fault changes nothing, by a part of their line, and why.
struct Harmless {
  FaultKind kind;
  const char* source;
};
const Harmless kHarmless[] = {
    {FaultKind::ignore_valid, "step_facts(tile, half)"},  // facts of queries beyond the last: their q and dO are 0
};
bool is_harmless(const FaultSite& site) {
  return std::any_of(std::begin(kHarmless), std::end(kHarmless),
                     [&](const Harmless& h) { return h.kind == site.kind && source_line(site.site).find(h.source) != std::string::npos; });
}

bool contains(const std::vector<FaultSite>& sites, const FaultSite& site) {
  return std::any_of(sites.begin(), sites.end(), [&](const FaultSite& s) { return s.kind == site.kind && s.site == site.site; });
}

}  // namespace

TEST_CASE("CUDA attention: faults that are seeded are found") {
  std::vector<Prepared> probes;
  for (const Probe& probe : kProbes) probes.push_back(prepare(probe));
  std::vector<FaultSite> sites;
  for (const Prepared& p : probes)
    for (const FaultSite& site : p.sites)
      if (!contains(sites, site)) sites.push_back(site);
  for (FaultKind kind : {FaultKind::skip_wait, FaultKind::skip_sync_block, FaultKind::skip_mask, FaultKind::ignore_valid, FaultKind::swap_a_registers,
                         FaultKind::swap_b_registers, FaultKind::swap_c_registers, FaultKind::shuffle_wrong_lane, FaultKind::past_shared}) {
    INFO(fault_name(kind) << " can be seeded nowhere");
    CHECK(std::any_of(sites.begin(), sites.end(), [&](const FaultSite& s) { return s.kind == kind; }));
  }
  for (const FaultSite& site : sites) {
    INFO(fault_name(site.kind) << " at " << site.site << ": " << source_line(site.site));
    const bool found = std::any_of(probes.begin(), probes.end(), [&](Prepared& p) { return contains(p.sites, site) && is_found(p, site); });
    CHECK((found || is_harmless(site)));
  }
}
