// Score against NFE for every solver of the table, on one checkpoint: a CSV and a PNG. Each point is one run of `uvit score`, so its number is the
// program's own, of the same seeds.
#include <torch/torch.h>

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <optional>
#include <regex>

#include "samplers/sampler.h"

namespace {

struct Point {
  std::string solver;
  std::int64_t num_steps, nfe;
  double score;
};

struct Arguments {
  std::string program = "build/uvit", checkpoint, out = "solvers", options;
  std::vector<std::int64_t> nfe = {5, 10, 20, 40};
  std::vector<std::string> solvers;
  std::int64_t images = 500;
  double highest = 0;
};

/// The number of steps that costs at most `nfe` calls.
std::int64_t steps_for(const uvit::SolverRow& row, std::int64_t nfe) {
  std::int64_t steps = 1;
  while (row.nfe && row.nfe(steps + 1) <= nfe) ++steps;
  return steps;
}

std::string quoted(const std::string& text) { return "'" + std::regex_replace(text, std::regex("'"), "'\\''") + "'"; }

/// What the first line of `uvit score` says; nothing where it fails, as it does for a solver that does not take the model's schedule.
std::optional<Point> score(const Arguments& a, const uvit::SolverRow& row, std::int64_t num_steps) {
  const std::string command = fmt::format("{} score {} --solver {} --num-steps {} -n {} --agreement 0 {}", quoted(a.program), quoted(a.checkpoint), row.name,
                                          num_steps, a.images, a.options);
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (!pipe) return std::nullopt;
  std::string output;
  for (int letter = std::fgetc(pipe); letter != EOF; letter = std::fgetc(pipe)) output += static_cast<char>(letter);
  std::smatch value, nfe;
  const std::string line = output.substr(0, output.find('\n'));
  const bool read = std::regex_search(line, value, std::regex(R"(= (-?[0-9.]+(e[+-]?[0-9]+)?))")) && std::regex_search(line, nfe, std::regex(R"(, nfe (\d+))"));
  if (::pclose(pipe) != 0 || !read) return std::nullopt;
  return Point{row.name, num_steps, std::stoll(nfe[1]), std::stod(value[1])};
}

/// A chart with logarithmic axes: one line a solver, its name at its right end.
class Chart {
 public:
  explicit Chart(const std::vector<Point>& points, double highest) : image_(kHeight, kWidth, CV_8UC3, cv::Scalar(255, 255, 255)) {
    for (const Point& p : points) {
      low_ = std::fmin(low_, p.score);
      high_ = std::fmax(high_, p.score);
      left_ = std::fmin(left_, static_cast<double>(p.nfe));
      right_ = std::fmax(right_, static_cast<double>(p.nfe));
    }
    if (highest > 0) high_ = std::fmin(high_, highest);
    if (right_ <= left_) right_ = left_ * 2;
    if (high_ <= low_) high_ = low_ * 2;
  }

  void axes(const std::string& title, const std::vector<std::int64_t>& nfe) {
    text(title, {kLeft, 30}, 0.6, {0, 0, 0});
    for (const std::int64_t n : nfe) {
      const cv::Point at = place({"", 0, n, low_});
      cv::line(image_, {at.x, kTop}, {at.x, kHeight - kBottom}, {225, 225, 225});
      text(std::to_string(n), {at.x - 8, kHeight - kBottom + 22}, 0.5, {0, 0, 0});
    }
    for (int i = 0; i <= 6; ++i) {
      const double value = low_ * std::pow(high_ / low_, i / 6.0);
      const cv::Point at = place({"", 0, static_cast<std::int64_t>(left_), value});
      cv::line(image_, {kLeft, at.y}, {kWidth - kRight, at.y}, {225, 225, 225});
      text(fmt::format("{:.3g}", value), {8, at.y + 5}, 0.5, {0, 0, 0});
    }
    text("NFE", {(kLeft + kWidth - kRight) / 2, kHeight - 12}, 0.5, {0, 0, 0});
  }

  void line(const std::vector<Point>& points, int number, int count) {
    cv::Mat colour(1, 1, CV_8UC3, cv::Scalar(static_cast<double>(number) * 180 / count, 230, 170)), converted;
    cv::cvtColor(colour, converted, cv::COLOR_HSV2BGR);
    const auto bgr = converted.at<cv::Vec3b>(0, 0);
    const cv::Scalar ink(bgr[0], bgr[1], bgr[2]);
    for (std::size_t i = 0; i < points.size(); ++i) {
      if (i > 0) cv::line(image_, place(points[i - 1]), place(points[i]), ink, 2, cv::LINE_AA);
      cv::circle(image_, place(points[i]), 4, ink, cv::FILLED, cv::LINE_AA);
    }
    // The legend, not the line's end: many solvers end at one score.
    const int y = kTop + 10 + number * 28;
    cv::line(image_, {kWidth - kRight + 20, y}, {kWidth - kRight + 50, y}, ink, 3);
    text(points.front().solver, {kWidth - kRight + 58, y + 5}, 0.5, {0, 0, 0});
  }

  void write(const std::string& path) const { cv::imwrite(path, image_); }

 private:
  static constexpr int kWidth = 1200, kHeight = 640, kLeft = 70, kRight = 310, kTop = 50, kBottom = 50;

  cv::Point place(const Point& p) const {
    const double x = std::log(static_cast<double>(p.nfe) / left_) / std::log(right_ / left_);
    const double y = std::log(std::fmin(p.score, high_) / low_) / std::log(high_ / low_);
    return {kLeft + static_cast<int>(x * (kWidth - kLeft - kRight)), kHeight - kBottom - static_cast<int>(y * (kHeight - kTop - kBottom))};
  }
  void text(const std::string& words, const cv::Point& at, double size, const cv::Scalar& ink) {
    cv::putText(image_, words, at, cv::FONT_HERSHEY_SIMPLEX, size, ink, 1, cv::LINE_AA);
  }

  cv::Mat image_;
  double low_ = 1e300, high_ = 0, left_ = 1e300, right_ = 0;
};

int run(const Arguments& a) {
  std::vector<std::vector<Point>> lines;
  std::vector<Point> all;
  std::ofstream csv(a.out + ".csv");
  csv << "solver,num_steps,nfe,score\n";
  for (const uvit::SolverRow& row : uvit::solver_table()) {
    if (!a.solvers.empty() && std::find(a.solvers.begin(), a.solvers.end(), row.name) == a.solvers.end()) continue;
    std::vector<Point> line;
    for (const std::int64_t nfe : a.nfe) {
      if (!row.nfe && !line.empty()) break;  // an adaptive solver has one point
      const std::optional<Point> point = score(a, row, steps_for(row, nfe));
      if (!point) {
        fmt::print(stderr, "{}: no score\n", row.name);
        break;
      }
      line.push_back(*point);
      csv << fmt::format("{},{},{},{:.6g}\n", point->solver, point->num_steps, point->nfe, point->score) << std::flush;
      fmt::print("{:<26} NFE {:>4}  {:.4g}\n", point->solver, point->nfe, point->score);
      std::fflush(stdout);
    }
    if (line.empty()) continue;
    all.insert(all.end(), line.begin(), line.end());
    lines.push_back(std::move(line));
  }
  if (all.empty()) return 1;
  Chart chart(all, a.highest);
  chart.axes(fmt::format("score of {} images against NFE {}", a.images, a.options), a.nfe);
  for (std::size_t i = 0; i < lines.size(); ++i) chart.line(lines[i], static_cast<int>(i), static_cast<int>(lines.size()));
  chart.write(a.out + ".png");
  fmt::print("{}.csv {}.png\n", a.out, a.out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Score against NFE for every solver");
  Arguments a;
  app.add_option("CHECKPOINT", a.checkpoint, "What `uvit score` takes")->required();
  app.add_option("--nfe", a.nfe, "Calls of the network a sample; a solver takes at most so many")->delimiter(',')->capture_default_str();
  app.add_option("--solvers", a.solvers, "Some rows of the table only")->delimiter(',');
  app.add_option("-n", a.images, "Images a score")->capture_default_str();
  app.add_option("--options", a.options, "More options of `uvit score`, as one word");
  app.add_option("--highest", a.highest, "Scores above this one are drawn at the upper edge");
  app.add_option("--program", a.program, "The program")->capture_default_str();
  app.add_option("--out", a.out, "Name of the .csv and .png")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  return run(a);
}
