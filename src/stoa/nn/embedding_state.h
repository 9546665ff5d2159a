#pragma once

// What EmbeddingTables holds. Internal to nn/embedding_*.cpp.

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "stoa/nn/embedding_exchange.h"
#include "stoa/nn/embedding_tables.h"
#include "stoa/ops/table_rows.h"
#include "stoa/ops/table_rows_kernels.h"

namespace stoa::nn {

/// The most rows of a table, and steps.
inline constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
/// Neighbouring rows that are worth a thread; sums over tables are taken by blocks of this size.
inline constexpr std::int64_t kBlock = 4096;

/// The update of the options, without its numbers by step.
ops::RowRule rule_for(const EmbeddingOptions& options);
/// Rows from `first` on count as brought up to `step`.
void set_last_steps(const at::Tensor& table, std::int64_t first, std::int64_t step,
                    const ops::RowFormat& format);
NormHistogram histogram_of(std::span<const float> norms);

/// Adam's rates by step and powers of its betas, as the kernels look them up (ops::RowRule).
class AdamNumbers {
 public:
  AdamNumbers(double lr, double beta1, double beta2);
  /// Makes the numbers for steps up to `step`.
  void extend(std::int64_t step);
  /// Points the rule at the numbers; to be done again after extend().
  void set(ops::RowRule& rule) const;

 private:
  double lr_, beta1_, beta2_;
  std::int64_t settled_;  ///< from this step on the rate is lr
  std::vector<float> rates_, fine_, coarse_, fade_;
};

/// Which rows are here, of those of each field that `size` processes share: the ones of which id plus field
/// is `rank` modulo `size`. Low ids, which are the frequent ones in many vocabularies, are thus dealt out
/// evenly, and fields of a few rows do not all lie with process 0.
struct RowSplit {
  std::int64_t rank = 0, size = 1;

  std::int64_t owner(std::int64_t field, std::int64_t id) const { return (id + field) % size; }
  /// The lowest id that a process has of a field.
  std::int64_t first(std::int64_t field, std::int64_t of_rank) const {
    return (of_rank - field % size + size) % size;
  }
  /// How many of a field's `rows` a process has.
  std::int64_t held(std::int64_t field, std::int64_t rows, std::int64_t of_rank) const {
    const auto from = first(field, of_rank);
    return rows > from ? (rows - from + size - 1) / size : 0;
  }
  /// Where a row lies in its owner's table, and which id lies at a place of this process's.
  std::int64_t place(std::int64_t id) const { return id / size; }
  std::int64_t id(std::int64_t field, std::int64_t place) const { return place * size + first(field, rank); }
};

/// Summed gradients of the rows that one batch, or several micro-batches, have touched.
struct TouchedRows {
  std::vector<std::int64_t> first;   ///< [fields + 1] where each field's rows begin
  std::vector<std::int64_t> ids;     ///< [rows], rising within a field; places once they are with their owner
  std::vector<std::int32_t> counts;  ///< [rows] occurrences
  at::Tensor gradients;              ///< [rows, width]
};

/// Puts together the rows of micro-batches or processes: counts and gradients add up in the order of parts.
TouchedRows merged(std::vector<TouchedRows> parts);

/// The weights of tables that are only read, by field: rows [size, dim + 1] of fp32 or fp16, or int8
/// embeddings [size, dim] with numbers [size, 2] of fp32, each row's scale and its linear weight.
struct ServedTables {
  std::vector<at::Tensor> rows, numbers;

  bool empty() const { return rows.empty(); }
  ServedType type() const;
  /// Embeddings [n, dim] and linear weights [n] of rows `ids` [n] of a field, in fp32.
  std::pair<at::Tensor, at::Tensor> read(std::int64_t field, const at::Tensor& ids) const;
};

struct EmbeddingTables::State {
  /// A lookup whose gradients may still come: they gather in rows.grad().
  struct Lookup {
    c10::intrusive_ptr<ops::DistinctIds> where;
    at::Tensor rows;  ///< [distinct, width], a leaf
  };

  State(std::vector<std::int64_t> field_sizes, EmbeddingOptions row_options, std::uint64_t row_seed);

  std::int64_t fields() const { return static_cast<std::int64_t>(sizes.size()); }
  std::int64_t size(std::int64_t field) const { return sizes.at(static_cast<std::size_t>(field)); }
  /// Rows of a field that are here.
  std::int64_t held(std::int64_t field) const { return split.held(field, size(field), split.rank); }
  /// The row at a place of this process's table: its id, where nothing is split.
  float* row(std::int64_t field, std::int64_t place) const {
    return data[static_cast<std::size_t>(field)] + place * rule.format.stride();
  }
  /// Of a field's rows [size, ...], given or stored whole, those that are here: a view.
  at::Tensor own_rows(std::int64_t field, const at::Tensor& whole) const;
  /// Makes the tables, once: zeros until they are drawn or loaded.
  void make_tables();
  /// A table of zeros.
  at::Tensor make_table(std::int64_t rows) const;
  /// Draws the starting weights of a field's new table from place `first` on.
  void draw_rows(std::int64_t field, const at::Tensor& table, std::int64_t first) const;
  /// Draws all starting weights, once.
  void draw();
  /// Puts a table in a field's place.
  void set_table(std::int64_t field, const at::Tensor& table);
  /// Numbers for steps up to `step`, for all that reads rule.
  void extend(std::int64_t step);
  /// Calls f(block, rows, count) for all rows here of one field as they are when all updates are done: a
  /// block's `count` rows [count, width], several blocks at once.
  void for_all_rows(std::int64_t field,
                    const std::function<void(std::int64_t, const float*, std::int64_t)>& f) const;
  /// Brings every row up to step `now`.
  void advance_all(std::int64_t now);
  /// Copies rows of one field, by place, as they are when all updates are done, out's row 0 being `begin`.
  void read(std::int64_t field, std::int64_t begin, std::int64_t end, const ops::RowOutput& out) const;
  /// All rows of one field likewise: embeddings [size, dim] and linear [size].
  std::pair<at::Tensor, at::Tensor> read_field(std::int64_t field) const;
  /// Checks a stored state, whose tables may with `fewer` have fewer rows, and returns its step count.
  std::int64_t check_state(const std::map<std::string, at::Tensor>& stored, bool fewer,
                           const std::string& source) const;
  void check_vocabulary(const std::map<std::string, at::Tensor>& stored, bool grown,
                        const std::string& source) const;
  /// The rows of checked ids: caught up and with gradients to come, or as they are read.
  std::pair<at::Tensor, at::Tensor> rows_for_training(const at::Tensor& ids);
  std::pair<at::Tensor, at::Tensor> rows_for_reading(const at::Tensor& ids);
  /// Copies `count` rows to [count, width]: brought up to the present step, or only read as if they were.
  void copy_rows(float* const* places, std::int64_t count, bool bring_up, float* to) const;
  /// Gathers what the lookups' backward passes have left in `touched`, where tables are split at the rows'
  /// owners; a lookup without gradient keeps waiting.
  void gather_gradients();
  void clear_gradients();
  TouchedRows no_rows() const;
  std::vector<float*> addresses(const TouchedRows& rows) const;
  /// What holds the gradients of each field's rows in this step (cowclip.md 2.4).
  std::vector<ops::RowLimit> limits(const TouchedRows& rows, const std::vector<float*>& places) const;
  /// Keeps the norms of the rows that a step has touched; returns what the log says of it.
  std::vector<std::pair<std::string, double>> finish_step(const std::vector<float>& norms,
                                                          std::int64_t clipped);

  std::vector<std::int64_t> sizes;
  EmbeddingOptions options;
  std::uint64_t seed;
  AdamNumbers numbers;
  ops::RowRule rule;
  std::vector<at::Tensor> tables;  ///< by field: [size, stride]
  std::vector<float*> data;        ///< by field
  bool drawn = false;              ///< the tables hold weights; until then zeros
  std::string vocabulary, grown_from;
  std::int64_t steps = 0;
  std::vector<Lookup> lookups;
  std::optional<TouchedRows> touched;
  NormHistogram last_norms;  ///< of the last step's gradients
  ServedTables served;       ///< in place of `tables`, which are then gone

  // with split rows (embedding_split.cpp)
  RowSplit split;
  std::shared_ptr<RowExchange> exchange;  ///< null where all rows are here
  bool given_up = false;                  ///< all rows have gone to process 0
  bool looked_up = false;  ///< since gradients were last sent, in some process: the same on all

  /// The rows [distinct, width] of a lookup, from their owners; `learn` says whether gradients will follow.
  at::Tensor fetch_rows(const std::vector<std::int64_t>& first, const std::vector<std::int64_t>& ids,
                        bool learn);
  /// Sends gradients to the rows' owners; returns those of the rows here, of all processes.
  TouchedRows send_gradients(const TouchedRows& rows) const;
  /// Replaces numbers by their sums over all processes.
  void sum_over_processes(std::vector<double>& numbers) const;
  /// Gives process 0 the whole table of a field in pieces: rows from `first` on, in the order of ids.
  using TakeRows = std::function<void(std::int64_t first, const at::Tensor& rows)>;
  void gather(std::int64_t field, const TakeRows& take) const;
  /// The whole table of a field on process 0, nothing on the others.
  at::Tensor gathered(std::int64_t field) const;
  /// What is stored beside the tables.
  std::map<std::string, at::Tensor> beside_rows() const;
  /// Refuses what only a process that has all rows can do.
  void require_whole(const char* doing) const;

  /// Refuses what tables that are only read cannot do.
  void require_trainable() const;
  void load_served(const std::map<std::string, at::Tensor>& stored, const std::string& source);
};

}  // namespace stoa::nn
