#pragma once

#include <cstdint>
#include <vector>

#include "stoa/data/text/text_dataset.h"

namespace stoa {

/// All documents laid end to end, behind each the end token where there is one (`end` not negative), cut into
/// windows of `length` tokens that do not overlap.
///
/// For training the stream is a ring that is cut from another place on in every epoch: each token is read at
/// most once an epoch, fewer than `length` are left out, all windows are full. For evaluation the windows
/// begin at the front, and the last one may be shorter.
class TokenWindows {
 public:
  /// Throws DataError for text that does not fill a window for training, or that has but one token.
  TokenWindows(TextDocuments documents, std::int32_t end, std::int64_t length, bool training);

  std::int64_t size() const { return size_; }
  /// Tokens of the stream.
  std::int64_t tokens() const { return starts_.back(); }
  /// The tokens of window `number` and the one behind it. `epoch_seed` decides where the ring is cut; for
  /// evaluation it is not used.
  std::vector<std::int32_t> window(std::int64_t number, std::uint64_t epoch_seed) const;

 private:
  void read(std::int64_t place, std::int64_t count, std::int32_t* to) const;

  TextDocuments documents_;
  std::int32_t end_;
  std::int64_t length_, size_ = 0;
  bool training_;
  std::vector<std::int64_t> starts_ = {0};  // of the documents in the stream, and its end
};

}  // namespace stoa
