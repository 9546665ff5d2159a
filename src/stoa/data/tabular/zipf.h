#pragma once

#include <cstdint>
#include <memory>

#include "stoa/base/options.h"
#include "stoa/data/tabular/dataset.h"

namespace stoa {

/// A made click log with a long tail of ids (cowclip.md 8): ids of each field are drawn with p(rank k) ~ (k +
/// shift)^ -exponent; each id has a bias and a latent vector; logit = intercept + sum of biases + sum over
/// pairs of fields of the latent vectors' dot products; the label is a coin of that logit.
struct ZipfOptions {
  std::int64_t fields = 8, ids = 20000;
  double exponent = 1.1, shift = 10;
  double intercept = -1.5, bias_deviation = 0.5, latent_deviation = 0.3;
  std::int64_t latent_dim = 4;
  std::int64_t train_rows = 400'000, validation_rows = 0, test_rows = 100'000;
  std::int64_t seed = 0;  ///< of the ids' effects and of the rows

  void visit(FieldVisitor& v);
  /// Throws ConfigError.
  void validate() const;
};

/// The rows of one split, in memory. The same options give the same rows on any number of threads. Throws
/// ConfigError where the split has no rows.
std::shared_ptr<const TabularDataset> make_zipf_dataset(const ZipfOptions& options, TabularSplit split);

}  // namespace stoa
