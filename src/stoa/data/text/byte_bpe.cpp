#include "stoa/data/text/byte_bpe.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <limits>
#include <queue>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/tabular/hash.h"
#include "stoa/data/text/byte_level.h"
#include "stoa/data/text/gpt2_pattern.h"
#include "stoa/data/text/tokenizer_files.h"
#include "stoa/data/text/unicode.h"

namespace stoa {
namespace {

constexpr std::size_t kFew = 24;  // symbols up to which looking at all pairs is faster than a queue
constexpr std::int32_t kNoRank = std::numeric_limits<std::int32_t>::max();

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

std::uint32_t next_serial() {
  static std::atomic<std::uint32_t> last{0};
  return ++last;
}

}  // namespace

/// Words that a thread has seen lately, with their tokens: most words of a text come again and again. Of
/// fixed size; a word takes the place of another with the same hash.
class ByteBpe::Cache {
 public:
  static constexpr std::size_t kLongest = 16, kMostIds = 9;
  struct Entry {
    std::uint64_t low = 0, high = 0;
    std::uint32_t serial = 0, length = 0, count = 0;
    std::int32_t ids[kMostIds];
  };

  /// The entry of this thread for a word of 1 to kLongest bytes, and whether it holds it.
  static std::pair<Entry*, bool> entry(std::string_view word, std::uint32_t serial) {
    thread_local std::vector<Entry> entries(kEntries);
    std::uint64_t low = 0, high = 0;
    if (word.size() >= 8) {  // the two overlap, which the length resolves
      std::memcpy(&low, word.data(), 8);
      std::memcpy(&high, word.data() + word.size() - 8, 8);
    } else {
      for (std::size_t i = 0; i < word.size(); ++i)
        low |= std::uint64_t{static_cast<std::uint8_t>(word[i])} << (8 * i);
    }
    const auto length = static_cast<std::uint32_t>(word.size());
    const std::uint64_t hash = hashing::fold(low ^ hashing::kFirst ^ serial,
                                             high ^ hashing::kSecond ^ (std::uint64_t{length} << 32));
    Entry& entry = entries[hash & (kEntries - 1)];
    if (entry.low == low && entry.high == high && entry.serial == serial && entry.length == length)
      return {&entry, true};
    entry.low = low, entry.high = high, entry.serial = serial, entry.length = length;
    return {&entry, false};
  }

 private:
  static constexpr std::size_t kEntries = 8192;  // of 64 bytes
};

ByteBpe::ByteBpe(TokenizerParts parts, ByteBpeOptions options)
    : VocabularyTokenizer(std::move(parts)), options_(std::move(options)), serial_(next_serial()) {
  index_bytes();
  index_merges();
  std::vector<AddedToken> sought;
  std::vector<std::string> contents;
  for (const AddedToken& token : added()) {
    if (!token.normalized) continue;
    sought.push_back(token);
    contents.push_back(token.content);
  }
  normalized_ = AddedTokenMatcher(std::move(sought), contents);
  std::vector<std::string> model{
      format("{}{}{}", options_.add_prefix_space, options_.ignore_merges, options_.fuse_unknown),
      options_.unknown};
  for (const auto& [left, right] : options_.merges) model.push_back(left + " " + right);
  set_fingerprint(model);
}

void ByteBpe::index_bytes() {
  byte_ids_.fill(-1);
  for (const auto& [text, id] : model_tokens()) {
    const char* at = text.data();
    const int byte = byte_level::byte(unicode::next(at));
    if (byte >= 0 && at == text.data() + text.size()) byte_ids_[static_cast<std::size_t>(byte)] = id;
    if (text == options_.unknown) unknown_ = id;
  }
  if (!options_.unknown.empty() && unknown_ < 0)
    throw DataError(format("the vocabulary has no `{}`, its unknown token", options_.unknown));
  const auto missing = std::ranges::find(byte_ids_, -1);
  if (missing != byte_ids_.end() && unknown_ < 0)
    throw DataError(format(
        "the vocabulary has no token for byte 0x{:02x} and no unknown token: text would be lost; train "
        "it with the whole byte alphabet",
        missing - byte_ids_.begin()));
}

void ByteBpe::index_merges() {
  const auto tokens = model_tokens();
  std::unordered_map<std::string_view, std::int32_t> ids(tokens.begin(), tokens.end());
  const auto id_of = [&](std::string_view token, std::size_t rank) {
    const auto found = ids.find(token);
    if (found == ids.end())
      throw DataError(format("merge {} (`{}` `{}`) needs the token `{}`, which the vocabulary lacks",
                             rank + 1, options_.merges[rank].first, options_.merges[rank].second, token));
    return found->second;
  };
  merges_.resize(std::bit_ceil(options_.merges.size() * 2 + 2));
  for (std::size_t rank = 0; rank < options_.merges.size(); ++rank) {
    const auto& [left, right] = options_.merges[rank];
    Merge merge{pair_of(id_of(left, rank), id_of(right, rank)), static_cast<std::int32_t>(rank),
                id_of(left + right, rank)};
    std::size_t at = hash64(merge.pair, 0) & (merges_.size() - 1);
    while (merges_[at].pair != kNoPair && merges_[at].pair != merge.pair)
      at = (at + 1) & (merges_.size() - 1);
    merges_[at] = merge;  // of a merge that comes twice, the later counts
  }
}

const ByteBpe::Merge* ByteBpe::merge_of(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  for (std::size_t at = hash64(pair, 0) & (merges_.size() - 1);; at = (at + 1) & (merges_.size() - 1)) {
    if (merges_[at].pair == pair) return &merges_[at];
    if (merges_[at].pair == kNoPair) return nullptr;
  }
}

/// The bytes of a word as tokens.
void ByteBpe::start(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.clear();
  bool unknown_before = false;
  for (std::size_t i = 0; i < word.size(); ++i) {
    const auto place = static_cast<std::int32_t>(i);
    const std::int32_t id = byte_ids_[static_cast<std::uint8_t>(word[i])];
    if (id < 0 && unknown_before && options_.fuse_unknown)
      symbols.back().end = place + 1;
    else
      symbols.push_back({id < 0 ? unknown_ : id, place, place + 1});
    unknown_before = id < 0;
  }
}

/// Joins neighbours, looking at all pairs for the next merge.
void ByteBpe::join_few(std::vector<Symbol>& symbols) const {
  const Merge* merges[kFew] = {};  // of each symbol and the next
  std::size_t count = symbols.size();
  for (std::size_t i = 0; i + 1 < count; ++i) merges[i] = merge_of(symbols[i].id, symbols[i + 1].id);
  while (count > 1) {
    std::size_t best = 0;
    std::int32_t rank = kNoRank;
    for (std::size_t i = 0; i + 1 < count; ++i)
      if (merges[i] != nullptr && merges[i]->rank < rank) rank = merges[i]->rank, best = i;
    if (rank == kNoRank) break;
    symbols[best].id = merges[best]->id;
    symbols[best].end = symbols[best + 1].end;
    --count;
    for (std::size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1], merges[i] = merges[i + 1];
    if (best > 0) merges[best - 1] = merge_of(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < count) merges[best] = merge_of(symbols[best].id, symbols[best + 1].id);
  }
  symbols.resize(count);
}

/// The same with a queue of merges, for long words: n log n.
void ByteBpe::join_many(std::vector<Symbol>& symbols) const {
  struct Candidate {
    std::int32_t rank, place, id;
    bool operator<(const Candidate& other) const {  // the greatest is taken first
      return rank != other.rank ? rank > other.rank : place > other.place;
    }
  };
  const auto count = static_cast<std::int32_t>(symbols.size());
  std::vector<std::int32_t> next(symbols.size()), before(symbols.size());
  std::priority_queue<Candidate> queue;
  const auto at = [&](std::int32_t place) -> Symbol& { return symbols[static_cast<std::size_t>(place)]; };
  const auto link = [&](std::vector<std::int32_t>& links, std::int32_t place) -> std::int32_t& {
    return links[static_cast<std::size_t>(place)];
  };
  const auto consider = [&](std::int32_t left, std::int32_t right) {
    if (left < 0 || right == count) return;
    if (const Merge* merge = merge_of(at(left).id, at(right).id)) queue.push({merge->rank, left, merge->id});
  };
  for (std::int32_t i = 0; i < count; ++i) link(next, i) = i + 1, link(before, i) = i - 1;
  for (std::int32_t i = 0; i < count; ++i) consider(i, i + 1);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const std::int32_t left = top.place;
    if (at(left).id < 0 || link(next, left) == count) continue;  // joined away, or the last by now
    const std::int32_t right = link(next, left);
    const Merge* merge = merge_of(at(left).id, at(right).id);
    if (merge == nullptr || merge->id != top.id) continue;  // another pair is here by now
    at(left).id = merge->id;
    at(left).end = at(right).end;
    at(right).id = -1;
    link(next, left) = link(next, right);
    if (link(next, left) < count) link(before, link(next, left)) = left;
    consider(link(before, left), left);
    consider(left, link(next, left));
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.id < 0; });
}

void ByteBpe::split_word(std::string_view word, std::vector<Symbol>& symbols) const {
  if (options_.ignore_merges)
    if (const auto whole = list().find(byte_level::written(word)); whole && !is_only_added(*whole)) {
      symbols.assign(1, {*whole, 0, static_cast<std::int32_t>(word.size())});
      return;
    }
  start(word, symbols);
  if (symbols.size() <= kFew)
    join_few(symbols);
  else
    join_many(symbols);
}

void ByteBpe::put_ids(std::string_view word, std::vector<Symbol>& scratch,
                      std::vector<std::int32_t>& ids) const {
  if (word.size() > Cache::kLongest) {
    split_word(word, scratch);
    for (const Symbol& symbol : scratch) ids.push_back(symbol.id);
    return;
  }
  const auto [entry, held] = Cache::entry(word, serial_);
  if (!held) {
    entry->serial = 0;  // in case of an exception
    split_word(word, scratch);
    if (scratch.size() > Cache::kMostIds) {
      for (const Symbol& symbol : scratch) ids.push_back(symbol.id);
      return;
    }
    entry->count = static_cast<std::uint32_t>(scratch.size());
    for (std::size_t i = 0; i < scratch.size(); ++i) entry->ids[i] = scratch[i].id;
    entry->serial = serial_;
  }
  ids.insert(ids.end(), entry->ids, entry->ids + entry->count);
}

/// Calls `work(added id or -1, text, begin, end)`: for added tokens with the text they lie in, for words with
/// that text and where it needs one a space before it.
template <class Work>
void ByteBpe::for_words(std::string_view text, const Work& work) const {
  std::string padded;
  normalized_.split(text, [&](const AddedTokenMatcher::Part& part) {
    if (part.id >= 0) {
      work(part.id, text, part.begin, part.end, part.begin, false);
      return;
    }
    std::string_view piece = text.substr(part.begin, part.end - part.begin);
    const bool pads = options_.add_prefix_space && piece[0] != ' ';
    if (pads) piece = padded.assign(" ").append(piece);
    for (std::size_t begin = 0; begin < piece.size();) {
      const std::size_t end = gpt2_piece_end(piece, begin);
      work(-1, piece, begin, end, part.begin, pads);
      begin = end;
    }
  });
}

void ByteBpe::cut(std::string_view text, std::int32_t offset, std::vector<Token>& tokens) const {
  std::vector<Symbol> symbols;
  for_words(text, [&](std::int32_t id, std::string_view piece, std::size_t begin, std::size_t end,
                      std::size_t piece_begin, bool padded) {
    if (id >= 0) {
      tokens.push_back(
          {id, offset + static_cast<std::int32_t>(begin), offset + static_cast<std::int32_t>(end)});
      return;
    }
    // the place of a part of a character is that of the whole one, that of a space put in is what it is
    // before
    const auto inside = [&](std::size_t at) {
      return at < piece.size() && (static_cast<std::uint8_t>(piece[at]) & 0xC0) == 0x80;
    };
    const std::size_t pad = padded ? 1 : 0;
    split_word(piece.substr(begin, end - begin), symbols);
    for (const Symbol& symbol : symbols) {
      std::size_t first = std::max(begin + static_cast<std::size_t>(symbol.begin), pad);
      std::size_t behind = std::max(begin + static_cast<std::size_t>(symbol.end), pad + 1);
      while (inside(first)) --first;
      while (inside(behind)) ++behind;
      const std::size_t base = static_cast<std::size_t>(offset) + piece_begin - pad;
      tokens.push_back(
          {symbol.id, static_cast<std::int32_t>(base + first), static_cast<std::int32_t>(base + behind)});
    }
  });
}

void ByteBpe::cut(std::string_view text, std::vector<std::int32_t>& ids) const {
  std::vector<Symbol> scratch;
  for_words(text, [&](std::int32_t id, std::string_view piece, std::size_t begin, std::size_t end,
                      std::size_t, bool) {
    if (id >= 0)
      ids.push_back(id);
    else
      put_ids(piece.substr(begin, end - begin), scratch, ids);
  });
}

std::string ByteBpe::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const std::int32_t id : shown(ids, skip_special)) bytes += byte_level::read(token(id));
  return unicode::repaired(bytes);
}

bool ByteBpe::continues_word(std::int32_t id) const {
  const std::string bytes = byte_level::read(token(id));
  return !is_added(id) && byte_level::continues_word(bytes);
}

void ByteBpe::save(const std::filesystem::path& folder) const {
  save_bpe(*this, folder);
}

}  // namespace stoa
