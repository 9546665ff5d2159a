#pragma once

#include <cstdint>
#include <vector>

#include "stoa/base/random.h"
#include "stoa/data/text/options.h"
#include "stoa/data/text/text_dataset.h"

namespace stoa {

/// The segments of a sequence, special tokens aside.
struct SegmentPair {
  std::vector<std::int32_t> first, second;  ///< the second is empty without a pair task
  std::int64_t label =
      0;  ///< next sentence: 1 where the second is from elsewhere; order: 1 where they are swapped
};

/// Cuts documents into blocks of whole sentences, one a sample; together they hold every sentence once. How
/// long a block aims to be, the sequence's length less its special tokens or, for a share of them, a random
/// length from 2 on, is fixed by the documents alone.
///
/// Without a pair task a block does not go beyond its aim (a longer sentence is cut into pieces). With one it
/// is filled until it reaches its aim, as BERT's and Megatron's, and then cut down; sentences longer than a
/// sequence are cut into pieces of half of one. Sentence order needs two sentences: documents of one give no
/// block, and none is left alone at the end of a document.
class SentenceBlocks {
 public:
  /// Throws DataError where there is no block, or next sentence has but one document.
  SentenceBlocks(TextDocuments documents, PairTask pairs, std::int64_t length, double short_share);

  std::int64_t size() const { return static_cast<std::int64_t>(blocks_.size()); }
  /// The segments of block `number`, at most the sequence's length less its special tokens.
  SegmentPair segments(std::int64_t number, RandomStream& random) const;

 private:
  struct Block {
    std::int64_t sentence = 0;  // the first
    std::int32_t piece = 0;     // of it
    std::int32_t aim = 0;       // tokens
  };
  std::int64_t pieces(std::int64_t size) const;
  std::int64_t piece_begin(std::int64_t sentence, std::int64_t piece) const;
  void add_document(const SentenceRange& document, double short_share);
  std::vector<std::int64_t> bounds(std::int64_t number, std::size_t& document) const;
  std::vector<std::int32_t> from_elsewhere(std::size_t document, std::int64_t aim,
                                           RandomStream& random) const;
  std::vector<std::int32_t> read(std::int64_t begin, std::int64_t end) const;

  TextDocuments documents_;
  PairTask pairs_;
  std::int64_t room_ = 0;  // tokens of the segments of a sequence
  std::vector<Block> blocks_;
};

/// Shortens two segments to `room` tokens together: one token at a time from the longer one (the second where
/// they are equal), from its front or its back at random.
void truncate_pair(std::vector<std::int32_t>& first, std::vector<std::int32_t>& second, std::int64_t room,
                   RandomStream& random);

}  // namespace stoa
