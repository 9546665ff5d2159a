#include <charconv>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/data/tabular/prepare.h"

namespace stoa {
namespace {

constexpr std::uint64_t kSplitPurpose = 411;
constexpr std::uint64_t kLargestShare = 1'000'000;

}  // namespace

RowSplit::RowSplit(const std::string& rule, const std::string& source, std::uint64_t seed) : seed_(seed) {
  std::string shares = rule;
  if (rule == "random") shares = source == "avazu" ? "4:0:1" : source == "movielens" ? "8:1:1" : "9:0:1";
  if (rule == "seq") {
    sequential_ = true;
    shares = "6:0:1";
  }
  const char* place = shares.data();
  const char* const end = shares.data() + shares.size();
  bool right = true;
  for (int i = 0; i < 3 && right; ++i) {
    const auto [next, error] = std::from_chars(place, end, shares_[i]);
    right = error == std::errc() && shares_[i] <= kLargestShare &&
            (i == 2 ? next == end : next != end && *next == ':');
    place = next + (right && i < 2 ? 1 : 0);
  }
  if (!right || shares_[0] == 0)
    throw ConfigError(
        format("--split {}: give random, seq, or the shares of train, validation and test such as 8:1:1, "
               "train not 0",
               rule));
}

TabularSplit RowSplit::of(std::int64_t row) const {
  const std::uint64_t all = shares_[0] + shares_[1] + shares_[2];
  if (sequential_) return row < total_ - total_ / 7 ? TabularSplit::kTrain : TabularSplit::kTest;
  __extension__ using Wide = unsigned __int128;
  const std::uint64_t hash = mix_seed({seed_, kSplitPurpose, static_cast<std::uint64_t>(row)});
  const auto drawn = static_cast<std::uint64_t>((static_cast<Wide>(hash) * all) >> 64);
  if (drawn < shares_[0]) return TabularSplit::kTrain;
  return drawn < shares_[0] + shares_[1] ? TabularSplit::kValidation : TabularSplit::kTest;
}

bool RowSplit::has(TabularSplit split) const {
  return shares_[static_cast<std::size_t>(split)] > 0;
}

}  // namespace stoa
