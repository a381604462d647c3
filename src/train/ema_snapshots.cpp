#include <torch/torch.h>

#include "train/ema_snapshots.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>
#include <tuple>

#include "core/atomic_file.h"
#include "core/error.h"
#include "io/safetensors.h"
#include "train/ema_profile.h"

namespace uvit {
namespace fs = std::filesystem;

namespace {

/// The number between prefix and suffix of a name.
template <class Number>
std::optional<Number> number_in(const std::string& name, std::string_view prefix, std::string_view suffix) {
  if (name.size() < prefix.size() + suffix.size() || !name.starts_with(prefix) || !name.ends_with(suffix)) return std::nullopt;
  Number value{};
  const char* end = name.data() + name.size() - suffix.size();
  const auto result = std::from_chars(name.data() + prefix.size(), end, value);
  return result.ec == std::errc() && result.ptr == end ? std::optional(value) : std::nullopt;
}

/// A density over (0, step].
struct Density {
  double step, gamma;
};

double inner_product(const Density& a, const Density& b) {
  const auto& [early, late] = std::minmax(a, b, [](const Density& x, const Density& y) { return x.step < y.step; });
  return (a.gamma + 1) * (b.gamma + 1) / (a.gamma + b.gamma + 1) * std::pow(early.step / late.step, late.gamma) / late.step;
}

}  // namespace

void keep_snapshots(const fs::path& run, const fs::path& step_folder, const TrainConfig& train) {
  if (train.ema_power.empty()) return;
  const fs::path folder = run / "ema" / step_folder.filename();
  make_directories(folder);
  for (const double length : train.ema_power) {
    const std::string name = fmt::format("ema_{}.safetensors", power_profile(length).name);
    std::error_code no_link;
    fs::remove(folder / name, no_link);
    fs::create_hard_link(step_folder / name, folder / name, no_link);
    if (!no_link) continue;
    std::error_code failed;
    fs::copy_file(step_folder / name, folder / name, failed);
    if (failed) throw Error(fmt::format("cannot keep the EMA snapshot {}: {}", (folder / name).string(), failed.message()));
  }
}

void remove_snapshots_beyond(const fs::path& run, std::int64_t step) {
  std::set<fs::path> folders;
  for (const EmaSnapshot& snapshot : find_snapshots(run))
    if (snapshot.step > step) folders.insert(snapshot.file.parent_path());
  std::error_code gone;
  for (const fs::path& folder : folders) fs::remove_all(folder, gone);
}

std::vector<EmaSnapshot> find_snapshots(const fs::path& run) {
  std::vector<EmaSnapshot> snapshots;
  std::error_code none;
  for (const auto& folder : fs::directory_iterator(run / "ema", none)) {
    const auto step = number_in<std::int64_t>(folder.path().filename().string(), "step-", "");
    if (!step) continue;
    for (const auto& file : fs::directory_iterator(folder.path(), none)) {
      const auto length = number_in<double>(file.path().filename().string(), "ema_power_", ".safetensors");
      if (length) snapshots.push_back({*step, *length, file.path()});
    }
  }
  std::sort(snapshots.begin(), snapshots.end(), [](const auto& a, const auto& b) { return std::tie(a.step, a.length) < std::tie(b.step, b.length); });
  return snapshots;
}

Reconstruction plan_reconstruction(const std::vector<EmaSnapshot>& snapshots, std::int64_t step, double length) {
  const Density wanted{static_cast<double>(step), power_gamma(length)};
  std::vector<Density> known;
  for (const EmaSnapshot& snapshot : snapshots)
    if (snapshot.step <= step) known.push_back({static_cast<double>(snapshot.step), power_gamma(snapshot.length)});
  if (known.empty()) throw Error(fmt::format("no EMA snapshot up to step {}: train with train.ema_power = [0.05, 0.1]", step));
  const auto n = static_cast<std::int64_t>(known.size());
  at::Tensor products = at::empty({n, n}, at::kDouble), with_wanted = at::empty({n, 1}, at::kDouble);
  // Scaled to norm 1 each, so that what is cut off as noise below hangs on the angles between the densities alone.
  const auto norm = [](const Density& density) { return std::sqrt(inner_product(density, density)); };
  for (std::int64_t i = 0; i < n; ++i) {
    const Density& row = known[static_cast<std::size_t>(i)];
    for (std::int64_t j = 0; j < n; ++j) {
      const Density& column = known[static_cast<std::size_t>(j)];
      products[i][j] = inner_product(row, column) / (norm(row) * norm(column));
    }
    with_wanted[i][0] = inner_product(row, wanted) / (norm(row) * norm(wanted));
  }
  const at::Tensor solution = std::get<0>(at::linalg_lstsq(products, with_wanted, 1e-12, "gelsd"));
  Reconstruction plan{.step = step, .length = length, .weights = std::vector<double>(snapshots.size(), 0.0)};
  std::size_t k = 0;
  for (std::size_t i = 0; i < snapshots.size(); ++i) {
    if (snapshots[i].step > step) continue;
    plan.weights[i] = solution[static_cast<std::int64_t>(k)][0].item<double>() * norm(wanted) / norm(known[k]);
    ++k;
  }
  const at::Tensor squared = 1 - 2 * (solution * with_wanted).sum() + (solution * at::matmul(products, solution)).sum();
  plan.residual = std::sqrt(std::fmax(0, squared.item<double>()));
  return plan;
}

NamedTensors reconstruct(const std::vector<EmaSnapshot>& snapshots, const Reconstruction& plan) {
  NamedTensors sum;
  for (std::size_t i = 0; i < snapshots.size(); ++i) {
    if (plan.weights[i] == 0) continue;
    const TensorFile file = read_safetensors(snapshots[i].file);
    if (!sum.empty() && file.tensors.size() != sum.size())
      throw Error(fmt::format("{} has other parameters than the snapshots before it", snapshots[i].file.string()));
    std::size_t k = 0;
    for (const auto& [name, host] : file.tensors) {
      const at::Tensor term = to_torch(host).to(at::kDouble) * plan.weights[i];
      if (sum.size() == k) sum.emplace_back(name, at::zeros_like(term));
      auto& [expected, total] = sum[k++];
      if (name != expected || total.sizes() != term.sizes())
        throw Error(fmt::format("{} has another parameter '{}' than the snapshots before it", snapshots[i].file.string(), name));
      total += term;
    }
  }
  for (auto& [name, tensor] : sum) tensor = tensor.to(at::kFloat);
  return sum;
}

}  // namespace uvit
