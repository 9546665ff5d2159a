#pragma once

#include <zlib.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "stoa/base/checksum.h"
#include "stoa/base/config.h"
#include "stoa/base/files.h"
#include "stoa/base/json.h"
#include "stoa/base/random.h"
#include "stoa/train/exhibit.h"

namespace stoa::test {

/// What a made-up run folder is like.
struct FakeRun {
  std::string title = "WideNet, 4 experts";
  std::string description =
      "One mixture of experts, applied six times, with layer norms of its own at each depth.";
  std::string model = "wide_net";
  std::int64_t seed = 0;
  std::int64_t steps = 480, log_every = 10, eval_every = 60;
  std::int64_t depth = 6, experts = 4;  ///< no experts: no router statistics
  double accuracy = 0.871;
  bool evaluated = true;
};

/// A gray picture as PNG, without a library: stored in the order IHDR, IDAT, IEND.
inline std::vector<std::uint8_t> gray_png(std::uint32_t side, const std::vector<std::uint8_t>& pixels) {
  std::vector<std::uint8_t> png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  const auto add_word = [](std::vector<std::uint8_t>& to, std::uint32_t word) {
    for (const int shift : {24, 16, 8, 0}) to.push_back(static_cast<std::uint8_t>(word >> shift));
  };
  const auto add_chunk = [&](const std::string& type, const std::vector<std::uint8_t>& data) {
    add_word(png, static_cast<std::uint32_t>(data.size()));
    std::vector<std::uint8_t> body(type.begin(), type.end());
    body.insert(body.end(), data.begin(), data.end());
    png.insert(png.end(), body.begin(), body.end());
    add_word(png, stoa::crc32(body));
  };
  std::vector<std::uint8_t> header;
  add_word(header, side);
  add_word(header, side);
  header.insert(header.end(), {8, 0, 0, 0, 0});
  std::vector<std::uint8_t> rows;
  for (std::uint32_t row = 0; row < side; ++row) {
    rows.push_back(0);  // no filter
    rows.insert(rows.end(), pixels.begin() + row * side, pixels.begin() + (row + 1) * side);
  }
  std::vector<std::uint8_t> packed(compressBound(rows.size()));
  uLongf size = packed.size();
  compress(packed.data(), &size, rows.data(), rows.size());
  packed.resize(size);
  add_chunk("IHDR", header);
  add_chunk("IDAT", packed);
  add_chunk("IEND", {});
  return png;
}

/// A shirt-like silhouette of 28 x 28 pixels; `kind` changes its cut.
inline std::vector<std::uint8_t> garment(int kind, RandomStream& random) {
  std::vector<std::uint8_t> pixels(28 * 28, 0);
  const double shade = random.uniform(110, 230), waist = 4.5 + kind % 4, sleeve = kind % 3 * 3.0;
  for (int y = 3; y < 26; ++y)
    for (int x = 0; x < 28; ++x) {
      const double off = std::abs(x - 13.5),
                   width = y < 11 ? waist + sleeve : waist + kind % 2 * (y - 11) / 5.0;
      if (off > width || (y < 6 && off < 2.5)) continue;
      pixels[static_cast<std::size_t>(y * 28 + x)] =
          static_cast<std::uint8_t>(std::min(255.0, shade + random.uniform(-18, 18)));
    }
  return pixels;
}

inline const std::array<const char*, 10> kGarments = {
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"};

inline GalleryExhibit fake_gallery(bool good, RandomStream& random) {
  GalleryExhibit gallery;
  for (int i = 0; i < 12; ++i) {
    const int truth = static_cast<int>(random.integer(0, 10)), wrong = (truth + 4) % 10;
    GalleryExhibit::Picture picture{gray_png(28, garment(truth, random)), "", good};
    picture.caption = std::string(kGarments[static_cast<std::size_t>(good ? truth : wrong)]) + " " +
                      std::to_string(random.integer(41, 99)) + " %";
    if (!good) picture.caption += std::string(", is ") + kGarments[static_cast<std::size_t>(truth)];
    gallery.pictures.push_back(picture);
  }
  return gallery;
}

inline HeatMapExhibit fake_confusion(double accuracy, RandomStream& random) {
  HeatMapExhibit map{"true class", "predicted class", {}, {}, {}, true};
  map.rows.assign(kGarments.begin(), kGarments.end());
  map.columns = map.rows;
  for (int row = 0; row < 10; ++row) {
    const double right = std::min(0.99, accuracy + random.uniform(-0.15, 0.12));
    std::vector<double> values(10, 0.0);
    for (int i = 0; i < 3; ++i) values[static_cast<std::size_t>(random.integer(0, 10))] += (1 - right) / 3;
    values[static_cast<std::size_t>(row)] += right;
    map.values.insert(map.values.end(), values.begin(), values.end());
  }
  return map;
}

inline Json fake_statistics(const FakeRun& fake, double progress, RandomStream& random) {
  Json load = Json::array(), drop = Json::array(), entropy = Json::array();
  for (int d = 0; d < fake.depth; ++d) {
    std::vector<double> row;
    double sum = 0;
    for (int e = 0; e < fake.experts; ++e) {
      const double drift = 0.16 * progress * std::sin(1.3 * d + 2.1 * e);
      row.push_back(1.0 / static_cast<double>(fake.experts) + drift + 0.01 * random.normal());
      sum += row.back();
    }
    for (double& value : row) value /= sum;
    load.push_back(row);
    drop.push_back(std::max(0.0, 0.10 * std::exp(-6 * progress) + 0.012 + 0.003 * random.normal()));
    entropy.push_back(1.38 - 0.5 * progress * (d + 1) / static_cast<double>(fake.depth) +
                      0.01 * random.normal());
  }
  return {{"router.load", load},
          {"router.drop_rate", drop},
          {"router.entropy", entropy},
          {"gate.mean", 0.5 + 0.1 * progress}};
}

inline std::string fake_log(const FakeRun& fake, RandomStream& random) {
  std::string lines;
  for (std::int64_t step = fake.log_every; step <= fake.steps; step += fake.log_every) {
    const double progress = static_cast<double>(step) / static_cast<double>(fake.steps);
    Json line = {
        {"step", step},
        {"kind", "train"},
        {"loss", 0.75 + 1.7 * std::exp(-7 * progress) + 0.05 * random.normal() + (0.87 - fake.accuracy)},
        {"lr", 3e-3 * std::min(1.0, 10 * progress) * (1 - progress)},
        {"gradient_norm", 1.1 + 0.5 * random.uniform()},
        {"samples_per_second", 1900 + 60 * random.normal()},
        {"seconds", 0.034 * static_cast<double>(step)}};
    if (fake.experts > 0) line["statistics"] = fake_statistics(fake, progress, random);
    lines += line.dump() + "\n";
    if (step % fake.eval_every != 0 && step != fake.steps) continue;
    const Json eval = {{"step", step},
                       {"kind", "eval"},
                       {"accuracy", fake.accuracy - 0.3 * std::exp(-5 * progress)},
                       {"loss", 0.36 + 0.9 * std::exp(-5 * progress)}};
    lines += eval.dump() + "\n";
  }
  return lines;
}

inline Json fake_info(const FakeRun& fake) {
  Json parts = {{{"name", "patch embedding"}, {"parameters", 2144}, {"macs", 25088}, {"activations", 4000}},
                {{"name", "attention"}, {"parameters", 4224}, {"macs", 2150400}, {"activations", 51000}},
                {{"name", "layer norms"}, {"parameters", 832}, {"macs", 0}, {"activations", 18816}},
                {{"name", "experts"}, {"parameters", 33408}, {"macs", 4816896}, {"activations", 112896}},
                {{"name", "head"}, {"parameters", 330}, {"macs", 320}, {"activations", 32}}};
  return {{"title", fake.title},
          {"task", "image_classification"},
          {"model", fake.model},
          {"input", "1 x 28 x 28"},
          {"parameters", 40938 + fake.experts},
          {"macs", 6992704},
          {"activations", 186744},
          {"parts", parts},
          {"steps", fake.steps}};
}

/// Writes a run folder of the form the trainer writes, without checkpoints.
inline void write_fake_run(const std::filesystem::path& folder, const FakeRun& fake = {}) {
  std::filesystem::create_directories(folder);
  RandomStream random(static_cast<std::uint64_t>(fake.seed) * 31 + static_cast<std::uint64_t>(fake.experts) +
                      7);
  const Json recipe = {{"title", fake.title},
                       {"description", fake.description},
                       {"task", {{"name", "image_classification"}, {"label_smoothing", 0.1}}},
                       {"model", {{"name", fake.model}, {"depth", fake.depth}, {"dim", 32}, {"heads", 2}}},
                       {"optimizer", {{"name", "adamw"}, {"lr", 3e-3}, {"weight_decay", 0.05}}},
                       {"train", {{"steps", fake.steps}, {"batch_size", 64}, {"seed", fake.seed}}}};
  write_file_atomically(folder / "recipe.toml", to_toml(recipe));
  write_file_atomically(folder / "run.json", fake_info(fake).dump(2));
  write_file_atomically(folder / "metrics.jsonl", fake_log(fake, random));
  if (!fake.evaluated) return;
  Json evaluation = {{"step", fake.steps},
                     {"metrics", {{"accuracy", fake.accuracy}, {"loss", 1.2 - fake.accuracy}}},
                     {"speed", {{"samples_per_second", 5321.7}, {"latency_ms", 1.84}}},
                     {"exhibits", Json::array()}};
  const std::vector<Exhibit> exhibits = {
      {"Confusion matrix", "Share of each true class (row) that was given each answer (column).",
       fake_confusion(fake.accuracy, random)},
      {"Right", "The first test images the model names rightly, with its probability.",
       fake_gallery(true, random)},
      {"Wrong", "The first test images the model names wrongly: its answer, then the truth.",
       fake_gallery(false, random)},
      {"Norms", "A table of the model's own.",
       TableExhibit{{"depth", "scale"}, {{"1", "0.98"}, {"2", "1.04"}}}},
      {"Agreement", "Share of tokens routed alike at neighbouring depths.",
       LinesExhibit{"depth",
                    "share",
                    {{"same expert", {1, 2, 3, 4, 5}, {0.31, 0.44, 0.52, 0.5, 0.61}},
                     {"same pair", {1, 2, 3, 4, 5}, {0.11, 0.24, 0.22, 0.3, 0.31}}}}}};
  for (const auto& exhibit : exhibits) evaluation["exhibits"].push_back(exhibit.to_json());
  write_file_atomically(folder / "evaluation.json", evaluation.dump());
}

}  // namespace stoa::test
