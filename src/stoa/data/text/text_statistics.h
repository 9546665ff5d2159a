#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "stoa/base/json.h"
#include "stoa/data/text/prepared_text.h"

namespace stoa {

/// Numbers of tokens, of sentences or of documents.
struct LengthStatistics {
  std::int64_t count = 0, median = 0, ninety_nine = 0, most = 0;
  double mean = 0;
};

/// What prepared text holds.
struct TextStatistics {
  std::string tokenizer, fingerprint;  ///< its kind
  std::int64_t vocabulary = 0;
  std::int64_t tokens = 0;
  std::int64_t seen = 0;     ///< ids of the vocabulary that occur
  std::int64_t unknown = 0;  ///< tokens that stand for text outside the vocabulary
  LengthStatistics sentences, documents;
  std::vector<std::pair<std::string, std::int64_t>> top;  ///< most frequent tokens
  /// Share of the tokens that the k most frequent ids cover, for rising k: 1, 2, 5, 10, 20 ... all seen.
  std::vector<std::pair<std::int64_t, double>> coverage;

  double unknown_share() const {
    return tokens > 0 ? static_cast<double>(unknown) / static_cast<double>(tokens) : 0;
  }
  Json to_json() const;
};

/// Reads all tokens once. Throws DataError for an id outside the vocabulary.
TextStatistics describe_text(const PreparedText& text, const Tokenizer& tokenizer);

/// The statistics of lengths, which are put in another order.
LengthStatistics length_statistics(std::vector<std::int64_t>& lengths);

}  // namespace stoa
