#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "stoa/base/options.h"
#include "stoa/nn/embedding_exchange.h"
#include "stoa/nn/sparse_weights.h"

namespace stoa::nn {

/// How rows that a batch does not touch are updated (cowclip.md 2.6).
enum class AbsentRows {
  kDense,    ///< every row at every step
  kReplay,   ///< the steps a row missed, made when it is read next: the same numbers as kDense, bit for bit
  kStrided,  ///< the first 24 missed steps exactly, then in growing strides: O(log gap)
  kLazy,     ///< never: another algorithm, which over-fits from the second epoch on
};
/// What the gradients of embeddings are clipped by (cowclip.md 2.4). Rows in no batch and linear weights are
/// not clipped; norms over several rows are of the rows that the batch touches, L2 included.
enum class RowClip {
  kNone,
  kGlobal,         ///< the norm over all fields at zeta
  kField,          ///< the norm over each field at zeta
  kIdConst,        ///< each row's norm at cnt zeta
  kFieldAdaptive,  ///< the norm over each field at r |w|, w being the field's touched rows, or at the floor
  kCowClip,        ///< each row's norm at cnt r |w|, or at cnt times the floor
};
/// What the threshold r |w| is at least: r (r sqrt(dim) zeta) as the original program has it, or zeta as the
/// paper.
enum class ClipFloor { kCode, kPaper };

/// Embedding tables and their update: Adam in Keras' form at a constant rate, L2 in the gradient, clipping by
/// row.
struct EmbeddingOptions {
  std::int64_t dim = 10;
  double lr = 1e-4;  ///< constant, without warm-up
  double l2 = 1e-5;  ///< lambda: the gradient of every row has 2 lambda w added, before the clip
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-7;       ///< outside the bias correction
  double init_std = 1e-2;  ///< of the embeddings; linear weights start at 0
  bool same_rows = false;  ///< row i of every field starts alike, as in the original program
  AbsentRows absent = AbsentRows::kStrided;
  RowClip clip = RowClip::kCowClip;
  double clip_ratio = 1;     ///< r
  double clip_floor = 1e-5;  ///< zeta; the constant norm of kIdConst and the limit of kGlobal, kField
  ClipFloor floor = ClipFloor::kCode;
  std::string storage;  ///< folder for table files mapped into memory; empty keeps tables in memory

  void visit(FieldVisitor& v);
  void validate() const;
};

/// How large the norms of rows are: rows[i] of them lie in [edges[i], edges[i + 1]), two bins to a power of
/// ten.
struct NormHistogram {
  std::vector<double> edges;       ///< one more than bins; the first is 0, the last infinite
  std::vector<std::int64_t> rows;  ///< by bin
};

/// Rows of a batch, differentiable.
struct EmbeddingRows {
  at::Tensor embeddings;  ///< [batch, fields, dim]
  at::Tensor linear;      ///< [batch, fields], first-order weights
};

/// One table for each categorical field, rows of `dim` embedding weights and one linear weight, interleaved
/// in memory with their moments: [w | m | v | last step], 34 floats for a dim of 10. Results do not depend on
/// the number of threads. Copies of weights, penalties and histograms read rows as if caught up and change
/// nothing.
///
/// Rows can be split over processes (SplitsRows): ids go to the processes that have their rows, the rows come
/// back, each distinct one of a lookup once; gradients, summed over a process's step, go the same way at
/// squared_gradient() or step(), after the last backward pass, and are added in the order of the processes.
/// So a row gets the numbers of one process but for rounding, and the bits of no other number of processes.
///
/// state(): "tables.rows.FIELD" [size, 3 (dim + 1) + 1], the last column being the bits of an int32,
/// "tables.steps", "tables.update" (the options that put-off updates need), "tables.gradient_norms" and,
/// where it has a name, "tables.vocabulary".
class EmbeddingTables : public SparseWeights, public SplitsRows {
 public:
  /// Draws the embeddings from N(0, init_std^2), rows independent of one another and of the number of
  /// threads: at draw(), or when they are first needed, so that a stored state is loaded into memory that
  /// nothing was written to.
  EmbeddingTables(std::vector<std::int64_t> sizes, EmbeddingOptions options, std::uint64_t seed);
  ~EmbeddingTables() override;

  /// The rows of `ids` [batch, fields] (int32 or int64, from 0 to the field's size). In grad mode the rows
  /// are caught up with the present step and backward gathers their gradients here; otherwise they are read
  /// as if caught up. Throws DataError for an id out of range, naming field and row.
  EmbeddingRows lookup(const at::Tensor& ids);

  void zero_grad() override;
  double squared_gradient() const override;
  std::vector<std::pair<std::string, double>> step() override;
  void flush() override;
  void serve(ServedType type) override;
  std::int64_t steps() const override;
  std::map<std::string, at::Tensor> state() const override;
  void load(const std::map<std::string, at::Tensor>& state, const std::string& source) override;
  void start_from(const std::map<std::string, at::Tensor>& state, const std::string& source) override;

  void split(std::shared_ptr<RowExchange> exchange) override;
  bool is_split() const override;
  void look_up_nothing() override;
  StreamedTensors streamed_state() const override;
  void join() override;

  const std::vector<std::int64_t>& sizes() const;
  const EmbeddingOptions& options() const;
  /// Copies of one field's weights, all updates done: embeddings [size, dim], linear [size]. Not of split
  /// tables.
  at::Tensor embeddings(std::int64_t field);
  at::Tensor linear(std::int64_t field);
  /// Draws the starting weights now, unless that is done or a state was loaded.
  void draw();
  /// Says by hashes what the ids mean. A stored state of another vocabulary than `own` is refused;
  /// start_from() also takes one of `grown_from`, whose ids this vocabulary keeps. What has no name is not
  /// compared.
  void name_vocabulary(std::string own, std::string grown_from);
  /// Replaces one field's weights (moments become 0): for tests, weights from elsewhere and warm starts.
  void set_weights(std::int64_t field, const at::Tensor& embeddings, const at::Tensor& linear);
  /// Makes tables larger: new rows are drawn anew, old ones stay as they are. Not of split tables.
  void grow(const std::vector<std::int64_t>& sizes);
  /// Sum of lambda w^2 over all weights: what the published loss adds (cowclip.md 2.3). A pass over the
  /// tables.
  double penalty();
  /// Norms of one field's embeddings, all updates done. A pass over the table.
  NormHistogram weight_norms(std::int64_t field);
  /// Norms of the embeddings' gradients, L2 included, before the clip, of the rows that the last step
  /// touched.
  const NormHistogram& gradient_norms() const;

 private:
  struct State;
  /// The state, its rows drawn.
  State& drawn() const;
  std::unique_ptr<State> state_;
};

}  // namespace stoa::nn
