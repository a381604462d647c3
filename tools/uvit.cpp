// The program `uvit`. Parses the command line; what a command does is in tools/commands/.
#include <torch/torch.h>
// torch first: it comes from the precompiled header
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <new>

#include "attention/device.h"
#include "commands/commands.h"
#include "core/cpu_info.h"
#include "core/error.h"
#include "core/name_table.h"
#include "core/version.h"
#include "distributed/launch.h"
#include "distributed/process_group.h"

namespace {

std::string describe_version() {
  return fmt::format("uvit {} ({})\nLibTorch {}\nCUDA: {}\nCPU: {}; ATen kernels {}; {} threads", uvit::version(), uvit::git_commit(), TORCH_VERSION,
                     uvit::describe_cuda(), uvit::cpu_description(), at::get_cpu_capability(), at::get_num_threads());
}

/// OpenMP's threads spin while they wait for each other, for milliseconds by default: where another process holds a core, a training slows down twentyfold.
/// A short spin costs nothing on an idle machine. The runtime reads the variable when it is loaded, before main, so the program starts itself once more.
void wait_without_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  setenv("GOMP_SPINCOUNT", "2000", 1);
  execv("/proc/self/exe", argv);  // returns only when it fails; then everything works, with the long spin
}

/// "rank 2: " in all processes but the first of several.
std::string rank_prefix() {
  try {
    const int rank = uvit::read_launch(uvit::process_environment()).rank;
    return rank > 0 ? fmt::format("rank {}: ", rank) : "";
  } catch (const uvit::Error&) {
    return "";
  }
}

int report(const std::string& message, int code, bool secondary = false) {
  std::string line = message.substr(0, message.find('\n'));
  if (!uvit::report_to_launcher(line, secondary)) fmt::print(stderr, "uvit: error: {}{}\n", rank_prefix(), line);
  return code;
}

constexpr int kPeerLost = 3;  // exit code where another process failed

/// CLI11's message as one line, with the nearest subcommand for a word that is none.
int report_usage(const CLI::App& app, const CLI::ParseError& error, int argc, char** argv) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  if (argc > 1 && argv[1][0] != '-' && app.get_subcommands().empty()) {
    try {
      uvit::throw_unknown_name("command", argv[1], names);
    } catch (const uvit::Error& unknown) {
      return report(unknown.what(), 2);
    }
  }
  return report(fmt::format("{} (see uvit {}--help)", error.what(), app.get_subcommands().empty() ? "" : app.get_subcommands()[0]->get_name() + " "), 2);
}

}  // namespace

int main(int argc, char** argv) {
  wait_without_spinning(argv);
  std::signal(SIGXFSZ, SIG_IGN);  // a file that grows past its limit is a failed write, not a death
  std::signal(SIGPIPE, SIG_IGN);
  auto logger = spdlog::stderr_logger_mt("uvit");
  logger->set_pattern("%v");
  spdlog::set_default_logger(logger);

  CLI::App app{"U-ViT and U-ViC diffusion models: train, sample, score.", "uvit"};
  app.set_version_flag("--version", describe_version, "Version, LibTorch, CUDA and CPU capability");
  app.require_subcommand(1);
  app.option_defaults()->always_capture_default();
  uvit::add_train_command(app);
  uvit::add_sample_command(app);
  uvit::add_film_command(app);
  uvit::add_edit_command(app);
  uvit::add_interpolate_command(app);
  uvit::add_likelihood_command(app);
  uvit::add_evaluate_command(app);
  uvit::add_fid_command(app);
  uvit::add_fid_stats_command(app);
  uvit::add_compare_command(app);
  uvit::add_report_command(app);
  uvit::add_runs_command(app);
  uvit::add_info_command(app);
  uvit::add_ema_command(app);
  uvit::add_convert_command(app);
  uvit::add_encode_command(app);
  uvit::add_encode_text_command(app);
  uvit::add_train_autoencoder_command(app);
  uvit::add_data_command(app);
  uvit::add_pack_command(app);
  uvit::add_list_command(app);

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::RuntimeError& ended) {
    return ended.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return report_usage(app, error, argc, argv);
  } catch (const uvit::UsageError& error) {
    return report(error.what(), 2);
  } catch (const uvit::PeerError& error) {
    report(error.what(), kPeerLost, true);
    std::fflush(nullptr);
    std::_Exit(kPeerLost);  // c10d's threads may wait for the lost process for ever
  } catch (const uvit::Error& error) {
    return report(error.what(), 1);
  } catch (const std::bad_alloc&) {
    return report("out of memory: use a smaller train.micro_batch_size or sample.batch_size", 1);
  } catch (const c10::OutOfMemoryError&) {
    return report("out of device memory: use a smaller train.micro_batch_size or sample.batch_size", 1);
  } catch (const c10::Error& error) {
    const std::string text = error.what_without_backtrace();
    if (text.find("can't allocate memory") != std::string::npos)
      return report("out of memory: use a smaller train.micro_batch_size or sample.batch_size", 1);
    return report("in LibTorch: " + text, 1);
  } catch (const std::exception& error) {
    return report(error.what(), 1);
  }
  return 0;
}
