#include "stoa/data/text/windows.h"

#include <algorithm>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"

namespace stoa {

TokenWindows::TokenWindows(TextDocuments documents, std::int32_t end, std::int64_t length, bool training)
    : documents_(std::move(documents)), end_(end), length_(length), training_(training) {
  starts_.reserve(documents_.documents.size() + 1);
  for (std::size_t d = 0; d < documents_.documents.size(); ++d)
    starts_.push_back(starts_.back() + documents_.token_end(d) - documents_.token_begin(d) +
                      (end_ >= 0 ? 1 : 0));
  size_ = training ? tokens() / length : (tokens() - 2 + length) / length;
  if (tokens() < (training ? length + 1 : 2))
    throw DataError(
        format("{}: {} tokens of text; {} are needed for {}; lower `data.length` or give more text",
               documents_.file->name(), tokens(), training ? length + 1 : 2,
               training ? "one window and the token behind it" : "an evaluation"));
}

void TokenWindows::read(std::int64_t place, std::int64_t count, std::int32_t* to) const {
  auto d =
      static_cast<std::size_t>(std::upper_bound(starts_.begin(), starts_.end(), place) - starts_.begin()) - 1;
  for (; count > 0; ++d) {
    const std::int64_t skipped = place - starts_[d], begin = documents_.token_begin(d) + skipped;
    const std::int64_t got = std::min(count, documents_.token_end(d) - begin);
    if (got > 0) documents_.file->read(begin, got, to);
    to += got;
    place += got;
    count -= got;
    if (count > 0 && end_ >= 0) {
      *to++ = end_;
      ++place;
      --count;
    }
  }
}

std::vector<std::int32_t> TokenWindows::window(std::int64_t number, std::uint64_t epoch_seed) const {
  if (number < 0 || number >= size_)
    throw Error(format("window {} of {}: not within the data", number, size_));
  std::int64_t place = number * length_;
  if (training_) place = (place + RandomStream(epoch_seed).integer(0, tokens())) % tokens();
  std::int64_t count = length_ + 1;
  if (!training_) count = std::min(count, tokens() - place);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
  const std::int64_t before_end = std::min(count, tokens() - place);
  read(place, before_end, ids.data());
  if (before_end < count) read(0, count - before_end, ids.data() + before_end);
  return ids;
}

}  // namespace stoa
