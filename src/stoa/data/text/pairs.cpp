#include "stoa/data/text/pairs.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

namespace {

constexpr std::uint64_t kAims = 202;  // names the stream of a document's aims

}  // namespace

void truncate_pair(std::vector<std::int32_t>& first, std::vector<std::int32_t>& second, std::int64_t room,
                   RandomStream& random) {
  struct Ends {
    std::vector<std::int32_t>& ids;
    std::ptrdiff_t begin = 0, end = std::ssize(ids);
  } a{first}, b{second};
  const auto size = [](const Ends& ends) { return ends.end - ends.begin; };
  while (size(a) + size(b) > room) {
    Ends& longer = size(a) > size(b) ? a : b;
    if (random.uniform() < 0.5)
      ++longer.begin;
    else
      --longer.end;
  }
  for (Ends* ends : {&a, &b}) {
    ends->ids.resize(static_cast<std::size_t>(ends->end));
    ends->ids.erase(ends->ids.begin(), ends->ids.begin() + ends->begin);
  }
}

SentenceBlocks::SentenceBlocks(TextDocuments documents, PairTask pairs, std::int64_t length,
                               double short_share)
    : documents_(std::move(documents)), pairs_(pairs), room_(length - (pairs == PairTask::kNone ? 2 : 3)) {
  const std::string& name = documents_.file->name();
  if (pairs == PairTask::kNextSentence && documents_.documents.size() < 2)
    throw DataError(
        format("{}: one document; next sentences need two or more, part them by blank lines", name));
  for (const SentenceRange& document : documents_.documents) add_document(document, short_share);
  if (blocks_.empty())
    throw DataError(
        format("{}: every document has but one sentence; sentence order needs two or more", name));
}

/// How many blocks' worth a sentence is cut into: one unless it is too long for a sequence.
std::int64_t SentenceBlocks::pieces(std::int64_t size) const {
  if (size <= room_) return size > 0 ? 1 : 0;
  const std::int64_t most = pairs_ == PairTask::kNone ? room_ : std::max<std::int64_t>(1, room_ / 2);
  return (size + most - 1) / most;
}

std::int64_t SentenceBlocks::piece_begin(std::int64_t sentence, std::int64_t piece) const {
  const TokenIndex& index = documents_.file->index();
  const std::int64_t begin = index.sentence_begin(sentence);
  if (piece == 0) return begin;
  const std::int64_t size = index.sentence_begin(sentence + 1) - begin;
  return begin + size * piece / pieces(size);
}

void SentenceBlocks::add_document(const SentenceRange& document, double short_share) {
  const TokenIndex& index = documents_.file->index();
  const auto size_of = [&](std::int64_t s) { return index.sentence_begin(s + 1) - index.sentence_begin(s); };
  std::int64_t left = 0;
  for (std::int64_t s = document.begin; s < document.end; ++s) left += pieces(size_of(s));
  const bool ordered = pairs_ == PairTask::kSentenceOrder;
  if (left < (ordered ? 2 : 1)) return;
  RandomStream random(mix_seed({kAims, static_cast<std::uint64_t>(document.begin)}));
  std::int64_t tokens = 0, units = 0, aim = 0;
  for (std::int64_t s = document.begin; s < document.end; ++s) {
    const std::int64_t count = pieces(size_of(s));
    for (std::int64_t p = 0; p < count; ++p) {
      const std::int64_t size = size_of(s) * (p + 1) / count - size_of(s) * p / count;
      if (pairs_ == PairTask::kNone && tokens + size > aim) units = 0;  // begins the next block
      if (units == 0) {
        aim = random.uniform() < short_share && room_ >= 2 ? random.integer(2, room_ + 1) : room_;
        blocks_.push_back({s, static_cast<std::int32_t>(p), static_cast<std::int32_t>(aim)});
        tokens = 0;
      }
      tokens += size;
      ++units;
      --left;
      const bool full = tokens >= aim && (!ordered || (units >= 2 && left != 1));
      if (pairs_ != PairTask::kNone && full) units = 0;
    }
  }
}

std::vector<std::int32_t> SentenceBlocks::read(std::int64_t begin, std::int64_t end) const {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(end - begin));
  documents_.file->read(begin, end - begin, ids.data());
  return ids;
}

/// Where the units of a block begin in the token file, and where the last ends.
std::vector<std::int64_t> SentenceBlocks::bounds(std::int64_t number, std::size_t& document) const {
  const Block& block = blocks_.at(static_cast<std::size_t>(number));
  const auto& list = documents_.documents;
  const auto next = std::upper_bound(
      list.begin(), list.end(), block.sentence,
      [](std::int64_t sentence, const SentenceRange& range) { return sentence < range.begin; });
  document = static_cast<std::size_t>(next - list.begin()) - 1;
  Block end{list[document].end, 0, 0};
  if (number + 1 < size()) {
    const Block& follower = blocks_[static_cast<std::size_t>(number) + 1];
    if (follower.sentence < end.sentence) end = follower;
  }
  std::vector<std::int64_t> places;
  const TokenIndex& index = documents_.file->index();
  for (std::int64_t s = block.sentence; s < end.sentence || (s == end.sentence && end.piece > 0); ++s) {
    const std::int64_t count =
        s == end.sentence ? end.piece : pieces(index.sentence_begin(s + 1) - index.sentence_begin(s));
    for (std::int64_t p = s == block.sentence ? block.piece : 0; p < count; ++p)
      places.push_back(piece_begin(s, p));
  }
  places.push_back(end.piece > 0 ? piece_begin(end.sentence, end.piece) : index.sentence_begin(end.sentence));
  return places;
}

/// Sentences of another document from a random one on, until they have `aim` tokens.
std::vector<std::int32_t> SentenceBlocks::from_elsewhere(std::size_t document, std::int64_t aim,
                                                         RandomStream& random) const {
  auto other = static_cast<std::size_t>(random.integer(0, std::ssize(documents_.documents) - 1));
  if (other >= document) ++other;
  const TokenIndex& index = documents_.file->index();
  const SentenceRange& range = documents_.documents[other];
  std::int64_t begin = random.integer(range.begin, range.end);
  // from a sentence without tokens go on to one that has some, or back where none follows
  const std::int64_t last = documents_.token_end(other);
  while (index.sentence_begin(begin) == last) --begin;
  std::int64_t end = begin;
  do {
    ++end;
  } while (end < range.end && (index.sentence_begin(end) - index.sentence_begin(begin) < aim ||
                               index.sentence_begin(end) == index.sentence_begin(begin)));
  const std::int64_t first = index.sentence_begin(begin);
  return read(first, std::min(index.sentence_begin(end), first + room_));
}

SegmentPair SentenceBlocks::segments(std::int64_t number, RandomStream& random) const {
  std::size_t document = 0;
  const std::vector<std::int64_t> places = bounds(number, document);
  const auto units = std::ssize(places) - 1;
  SegmentPair pair;
  if (pairs_ == PairTask::kNone) {
    pair.first = read(places.front(), places.back());
    return pair;
  }
  const std::int64_t cut = places[static_cast<std::size_t>(units > 1 ? random.integer(1, units) : units)];
  pair.first = read(places.front(), cut);
  if (pairs_ == PairTask::kSentenceOrder) {
    pair.second = read(cut, places.back());
    truncate_pair(pair.first, pair.second, room_, random);
    pair.label = random.uniform() < 0.5 ? 1 : 0;
    if (pair.label == 1) std::swap(pair.first, pair.second);
    return pair;
  }
  pair.label = units == 1 || random.uniform() < 0.5 ? 1 : 0;
  const std::int64_t aim = blocks_[static_cast<std::size_t>(number)].aim - std::ssize(pair.first);
  pair.second = pair.label == 1 ? from_elsewhere(document, aim, random) : read(cut, places.back());
  truncate_pair(pair.first, pair.second, room_, random);
  return pair;
}

}  // namespace stoa
