#include "stoa/data/tabular/dataset.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/data/parallel.h"
#include "stoa/data/tabular/folder.h"
#include "stoa/data/tabular/gather.h"
#include "stoa/data/tabular/row_file.h"
#include "stoa/data/tabular/row_order.h"

namespace stoa {

namespace fs = std::filesystem;

namespace {

// Up to so many bytes a split's checksums are compared when it is opened; beyond, a block's when it is first
// read.
constexpr std::int64_t kCheckedAtOnce = std::int64_t{1} << 30;
constexpr std::int64_t kLookUp = 4096;  // rows that one entry of the look-up table covers

/// The row files of one split, mapped into memory.
class PreparedDataset final : public TabularDataset {
 public:
  PreparedDataset(PreparedFolder folder, TabularSplit split)
      : folder_(std::move(folder)), schema_(folder_.encoding.schema()) {
    const PreparedFolder::Split& wanted = folder_.splits[static_cast<std::size_t>(split)];
    if (wanted.rows == 0)
      throw ConfigError(
          format("{}: the data were prepared without {} rows; choose another split, or prepare them with "
                 "--split 8:1:1",
                 folder_.folder.string(), split_name(split)));
    const std::uint64_t encoding = std::stoull(folder_.vocabulary_hash.substr(0, 16), nullptr, 16);
    for (const auto& part : wanted.parts) add_file(part, encoding);
    if (size_ != wanted.rows)
      throw DataError(format("{}: the {} files have {} rows, {} were written; prepare the data again",
                             folder_.folder.string(), split_name(split), size_, wanted.rows));
    for (std::int64_t row = 0, block = 0; row < size_; row += kLookUp) {
      while (block + 1 < static_cast<std::int64_t>(blocks_.size()) && blocks_[block + 1].first_row <= row)
        ++block;
      look_up_.push_back(static_cast<std::uint32_t>(block));
    }
    checked_ = std::vector<std::atomic<bool>>(blocks_.size());
    std::int64_t bytes = 0;
    for (const auto& part : wanted.parts) bytes += part.bytes;
    if (bytes <= kCheckedAtOnce)
      for_each_parallel(static_cast<std::int64_t>(blocks_.size()), [&](std::int64_t block) { check(block); });
  }

  const TabularSchema& schema() const override { return schema_; }
  std::int64_t size() const override { return size_; }

  Batch rows(std::span<const std::int64_t> numbers) const override {
    std::vector<GatheredRow> rows(numbers.size());
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (numbers[i] < 0 || numbers[i] >= size_)
        throw Error(format("row {} of {}: not within the data", numbers[i], size_));
      std::size_t block = look_up_[numbers[i] / kLookUp];
      while (block + 1 < blocks_.size() && blocks_[block + 1].first_row <= numbers[i]) ++block;
      if (!checked_[block].load(std::memory_order_acquire)) check(static_cast<std::int64_t>(block));
      const RowBlock& source = files_[blocks_[block].file].content.blocks[blocks_[block].block];
      rows[i] = {source.payload.data(), source.rows,
                 static_cast<std::uint32_t>(numbers[i] - blocks_[block].first_row)};
    }
    return gather_rows(rows, schema_.fields.size(), schema_.numerics.size());
  }

  std::vector<std::int64_t> frequencies(std::int64_t field) const override {
    std::call_once(counts_read_, [&] { counts_ = folder_.read_counts(); });
    if (field < 0 || field >= static_cast<std::int64_t>(counts_.size()))
      throw Error(format("field {} of {}: not within the data", field, counts_.size()));
    return {counts_[field].begin(), counts_[field].end()};
  }

 private:
  struct File {
    std::string name;
    std::unique_ptr<MappedFile> bytes;
    RowFile content;
  };
  struct Block {
    std::size_t file = 0, block = 0;
    std::int64_t first_row = 0;
  };

  void add_file(const PreparedFolder::Part& part, std::uint64_t encoding) {
    File file{(folder_.folder / part.file).string(), nullptr, {}};
    try {
      file.bytes = std::make_unique<MappedFile>(file.name);
    } catch (const IoError& error) {
      throw DataError(format("{}; the prepared data are not whole, prepare them again", error.what()));
    }
    file.content = parse_row_file(file.bytes->bytes(), file.name);
    if (file.content.fields != schema_.fields.size() || file.content.numerics != schema_.numerics.size() ||
        file.content.encoding != encoding || static_cast<std::int64_t>(file.content.rows) != part.rows)
      throw DataError(
          format("{}: the rows belong to another preparation; prepare the data again", file.name));
    for (std::size_t block = 0; block < file.content.blocks.size(); ++block) {
      blocks_.push_back({files_.size(), block, size_});
      size_ += file.content.blocks[block].rows;
    }
    files_.push_back(std::move(file));
  }

  void check(std::int64_t block) const {
    const Block& place = blocks_[block];
    const File& file = files_[place.file];
    check_block(file.content, place.block, folder_.encoding.sizes, file.name);
    checked_[block].store(true, std::memory_order_release);
  }

  PreparedFolder folder_;
  TabularSchema schema_;
  std::int64_t size_ = 0;
  std::vector<File> files_;
  std::vector<Block> blocks_;
  std::vector<std::uint32_t> look_up_;  // the block of every 4,096th row
  mutable std::vector<std::atomic<bool>> checked_;
  mutable std::once_flag counts_read_;
  mutable std::vector<std::vector<std::uint32_t>> counts_;  // of ids, by field; read when first asked for
};

void check_dataset(const std::shared_ptr<const TabularDataset>& dataset) {
  if (!dataset || dataset->size() == 0) throw DataError("the data set has no rows; check its path");
}

}  // namespace

std::shared_ptr<const TabularDataset> open_tabular_dataset(const fs::path& folder, TabularSplit split) {
  return std::make_shared<const PreparedDataset>(PreparedFolder::open(folder), split);
}

std::unique_ptr<BatchSource> train_tabular_batches(std::shared_ptr<const TabularDataset> dataset,
                                                   const BatchPlan& plan) {
  check_dataset(dataset);
  const auto order = std::make_shared<RowOrder>(dataset->size(), plan.seed);
  const std::int64_t batch_size = plan.batch_size;
  return stepped_batches(plan, [dataset = std::move(dataset), order, batch_size](std::int64_t step) {
    return dataset->rows(order->rows_of_step(step, batch_size));
  });
}

std::unique_ptr<BatchSource> test_tabular_batches(std::shared_ptr<const TabularDataset> dataset,
                                                  const BatchPlan& plan) {
  check_dataset(dataset);
  const std::int64_t size = dataset->size();
  return ordered_batches(size, plan, [dataset = std::move(dataset)](const std::vector<SampleKey>& keys) {
    std::vector<std::int64_t> numbers;
    for (const SampleKey& key : keys) numbers.push_back(key.index);
    return dataset->rows(numbers);
  });
}

}  // namespace stoa
