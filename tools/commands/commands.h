#pragma once
#include <CLI/CLI.hpp>

namespace uvit {

// Each adds one subcommand to the program; the work is done in the subcommand's callback, and what fails throws Error.
void add_train_command(CLI::App& app);
void add_sample_command(CLI::App& app);
void add_film_command(CLI::App& app);
void add_edit_command(CLI::App& app);
void add_interpolate_command(CLI::App& app);
void add_likelihood_command(CLI::App& app);
void add_evaluate_command(CLI::App& app);
void add_fid_command(CLI::App& app);
void add_fid_stats_command(CLI::App& app);
void add_compare_command(CLI::App& app);
void add_report_command(CLI::App& app);
void add_runs_command(CLI::App& app);
void add_info_command(CLI::App& app);
void add_ema_command(CLI::App& app);
void add_convert_command(CLI::App& app);
void add_encode_command(CLI::App& app);
void add_encode_text_command(CLI::App& app);
void add_train_autoencoder_command(CLI::App& app);
void add_data_command(CLI::App& app);
void add_pack_command(CLI::App& app);
void add_list_command(CLI::App& app);

}  // namespace uvit
