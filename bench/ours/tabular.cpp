// Raw click logs and what is measured of scores.
//   {"mode": "prepare", "path": FILE, "rows": ROWS}     a raw Criteo file to columns, as `stoa data prepare`
//   does
//   {"mode": "parse", "path": FILE, "rows": ROWS, "form": "plain"}     lines to numbers, one thread; plain:
//   by the
//                                                                     standard library, cell by cell
//   {"mode": "auc", "rows": 4600000}
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <charconv>
#include <filesystem>
#include <fstream>

#include "bench/support/worker.h"
#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/data/tabular/parse.h"
#include "stoa/data/tabular/prepare.h"
#include "stoa/metrics/binary.h"

namespace {

using namespace stoa;
namespace fs = std::filesystem;

/// `share` is how many threads the rate is divided by.
Json amount(const Json& spec, int share) {
  return {{"amount", static_cast<double>(bench::integer(spec, "rows")) / share}};
}

class Prepare final : public bench::Work {
 public:
  explicit Prepare(const Json& spec) : spec_(spec) {
    options_.source = "criteo";
    options_.inputs = {spec.at("path").get<std::string>()};
    options_.out = options_.inputs[0].parent_path() / "prepared";
    options_.overwrite = true;
  }
  ~Prepare() override { fs::remove_all(options_.out); }
  void run() override { prepare_tabular(options_); }
  Json describe() override { return amount(spec_, at::get_num_threads()); }

 private:
  Json spec_;
  PrepareOptions options_;
};

/// All lines of a file that lies in memory, one thread.
class Parse : public bench::Work {
 public:
  explicit Parse(const Json& spec)
      : spec_(spec), file_(spec.at("path").get<std::string>()), rows_(layout_, kRowsAtOnce) {}
  void run() override {
    auto text = whole();
    for (std::int64_t line = 1; !text.empty(); line += static_cast<std::int64_t>(rows_.rows))
      text.remove_prefix(parser_.parse(text, line, rows_));
  }
  Json describe() override { return amount(spec_, 1); }

 protected:
  std::string_view whole() const {
    return {reinterpret_cast<const char*>(file_.bytes().data()), file_.bytes().size()};
  }

 private:
  static constexpr std::size_t kRowsAtOnce = 4096;
  Json spec_;
  MappedFile file_;
  RawLayout layout_ = criteo_layout(false);
  RowParser parser_{layout_, "file"};
  ParsedRows rows_;
};

/// Cells found by find(), numbers read by from_chars().
class PlainParse final : public Parse {
 public:
  explicit PlainParse(const Json& spec) : Parse(spec) {}
  void run() override {
    auto text = whole();
    while (!text.empty()) {
      auto line = text.substr(0, text.find('\n'));
      text.remove_prefix(std::min(line.size() + 1, text.size()));
      for (std::size_t column = 0; column < 40; ++column) {
        const auto cell = line.substr(0, line.find('\t'));
        line.remove_prefix(std::min(cell.size() + 1, line.size()));
        const int base = column < 14 ? 10 : 16;
        std::int64_t value = -1;
        const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value, base);
        if (!cell.empty() && (error != std::errc() || end != cell.data() + cell.size()))
          throw DataError("a cell is no number");
        cells_[column] += value;  // so that nothing is left out
      }
    }
  }

 private:
  std::int64_t cells_[40] = {};
};

class Auc final : public bench::Work {
 public:
  explicit Auc(const Json& spec) {
    const auto rows = bench::integer(spec, "rows");
    labels_ = at::rand({rows}).lt(0.256).to(at::kFloat);
    scores_ = at::randn({rows}).add_(labels_, 0.5);
  }
  void run() override { last_ = metrics::auc(scores_, labels_); }
  TensorFile reference() override {
    run();
    return {{{"labels", labels_}, {"scores", scores_}, {"auc", at::full({}, last_, at::kDouble)}}, {}};
  }

 private:
  at::Tensor labels_, scores_;
  double last_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  return bench::serve(argc, argv, [](const Json& spec) -> std::unique_ptr<bench::Work> {
    const auto mode = spec.at("mode").get<std::string>();
    if (mode == "prepare") return std::make_unique<Prepare>(spec);
    if (mode == "auc") return std::make_unique<Auc>(spec);
    if (spec.value("form", "") == "plain") return std::make_unique<PlainParse>(spec);
    return std::make_unique<Parse>(spec);
  });
}
