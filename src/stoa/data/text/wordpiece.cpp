#include "stoa/data/text/wordpiece.h"

#include <utility>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/data/text/tokenizer_files.h"

namespace stoa {
namespace {

/// Where ids go; ids alone need no places.
struct IdSink {
  static constexpr bool kPlaces = false;
  std::vector<std::int32_t>& ids;
  void put(std::int32_t id, std::int32_t, std::int32_t) { ids.push_back(id); }
  std::size_t size() const { return ids.size(); }
  void cut_back(std::size_t size) { ids.resize(size); }
};
struct TokenSink {
  static constexpr bool kPlaces = true;
  std::vector<Token>& tokens;
  void put(std::int32_t id, std::int32_t begin, std::int32_t end) { tokens.push_back({id, begin, end}); }
  std::size_t size() const { return tokens.size(); }
  void cut_back(std::size_t size) { tokens.resize(size); }
};

/// Normalised text, and for each of its bytes the place of the character that it comes from.
struct NormalizedText {
  std::string text;
  std::vector<std::int32_t> begins, ends;

  void ascii(BertNormalizer::AsciiRule rule, std::int32_t place) {
    point(static_cast<std::uint8_t>(rule.out), place, place + 1);
  }
  void point(char32_t point, std::int32_t begin, std::int32_t end) {
    unicode::append(point, text);
    begins.resize(text.size(), begin);
    ends.resize(text.size(), end);
  }
  void split(std::int32_t begin, std::int32_t end) { point(' ', begin, end); }
};

/// Joins punctuation and English contractions to what stands before, as `tokenizers` does it.
std::string cleaned_up(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules)
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  return text;
}

}  // namespace

/// Cuts normalised text into words and those into tokens. Walks down the vocabulary while a word comes in, so
/// that one which is a token, as most are, is looked at once.
template <class Out>
class WordPiece::Cutter {
 public:
  Cutter(const WordPiece& model, Out& out) : model_(model), trie_(model.trie_), out_(out) {}

  void ascii(BertNormalizer::AsciiRule rule, std::int32_t place) {
    if (rule.kind == BertNormalizer::Ascii::kWord) {
      add(&rule.out, 1, place, place + 1);
      return;
    }
    flush();
    if (rule.kind == BertNormalizer::Ascii::kSpace) return;
    add(&rule.out, 1, place, place + 1);
    flush();
  }
  void point(char32_t point, std::int32_t begin, std::int32_t end) {
    const std::uint8_t kind = unicode::classes(point);
    if ((kind & (unicode::kSpace | unicode::kPunctuation)) != 0) flush();
    if ((kind & unicode::kSpace) != 0) return;
    char bytes[4];
    add(bytes, unicode::put(point, bytes), begin, end);
    if ((kind & unicode::kPunctuation) != 0) flush();
  }
  void split(std::int32_t, std::int32_t) { flush(); }

  /// Ends the word.
  void flush() {
    if (length_ == 0) return;
    if (characters_ > model_.longest_)
      unknown();
    else if (found_length_ == length_)
      put(found_, 0, length_);
    else
      pieces();
    length_ = characters_ = found_length_ = 0;
    node_ = ByteTrie::kRoot;
  }

 private:
  void add(const char* bytes, int count, std::int32_t begin, std::int32_t end) {
    if (length_ + 4 > word_.size()) grow();
    if constexpr (Out::kPlaces) {
      if (length_ == 0) word_begin_ = begin;
      word_end_ = end;
    }
    if (++characters_ > model_.longest_) return;  // unknown anyhow
    for (int i = 0; i < count; ++i) {
      if constexpr (Out::kPlaces) begins_[length_] = begin, ends_[length_] = end;
      word_[length_++] = bytes[i];
      if (node_ == ByteTrie::kNone) continue;
      node_ = trie_.step(node_, bytes[i]);
      if (node_ == ByteTrie::kNone || trie_.id(node_) == ByteTrie::kNone) continue;
      found_ = trie_.id(node_);
      found_length_ = length_;
    }
  }
  void grow() {
    word_.resize(word_.size() * 2 + 128);
    if constexpr (Out::kPlaces) {
      begins_.resize(word_.size());
      ends_.resize(word_.size());
    }
  }
  void put(std::int32_t id, std::size_t from, std::size_t to) {
    if constexpr (Out::kPlaces)
      out_.put(id, begins_[from], ends_[to - 1]);
    else
      out_.put(id, 0, 0);
  }
  void unknown() { out_.put(model_.unknown_, word_begin_, word_end_); }

  /// The word as the longest tokens one after the other, or as the unknown one.
  void pieces() {
    if (found_length_ == 0 || model_.inside_ == ByteTrie::kNone) {
      unknown();
      return;
    }
    const std::size_t before = out_.size();
    put(found_, 0, found_length_);
    for (std::size_t from = found_length_; from < length_;) {
      const ByteTrie::Match match =
          trie_.longest(model_.inside_, std::string_view(word_.data() + from, length_ - from));
      if (match.length == 0) {
        out_.cut_back(before);
        unknown();
        return;
      }
      put(match.id, from, from + match.length);
      from += match.length;
    }
  }

  const WordPiece& model_;
  const ByteTrie& trie_;
  Out& out_;
  std::vector<char> word_;
  std::vector<std::int32_t> begins_, ends_;  // by byte of the word
  std::int32_t word_begin_ = 0, word_end_ = 0;
  std::size_t length_ = 0, characters_ = 0;
  std::int32_t node_ = ByteTrie::kRoot, found_ = ByteTrie::kNone;  // the longest token so far
  std::size_t found_length_ = 0;
};

WordPiece::WordPiece(TokenizerParts parts, WordPieceOptions options)
    : VocabularyTokenizer(std::move(parts)),
      options_(std::move(options)),
      normalizer_(options_.normalizer),
      trie_(model_tokens()),
      inside_(trie_.walk(ByteTrie::kRoot, options_.prefix)) {
  unknown_ = trie_.find(options_.unknown);
  if (unknown_ == ByteTrie::kNone)
    throw DataError(
        format("the vocabulary has no `{}`, which WordPiece gives for unknown words", options_.unknown));
  if (options_.longest_word < 1)
    throw DataError(format("max_input_chars_per_word is {}; 1 or more is needed", options_.longest_word));
  longest_ = static_cast<std::size_t>(options_.longest_word);
  std::vector<AddedToken> sought;
  std::vector<std::string> contents;
  for (const AddedToken& token : added()) {
    if (!token.normalized) continue;
    NormalizedText normalized;
    normalizer_.run(token.content, 0, normalized);
    sought.push_back(token);
    contents.push_back(normalized.text);
    shown_[token.id] = normalized.text;
  }
  normalized_ = AddedTokenMatcher(std::move(sought), contents);
  const BertNormalizerOptions& rules = options_.normalizer;
  set_fingerprint(std::vector<std::string>{options_.unknown, options_.prefix,
                                           format("{}:{}{}{}{}", options_.longest_word, rules.clean_text,
                                                  rules.ideographs, rules.strip_accents, rules.lowercase)});
}

WordPiece::~WordPiece() = default;

template <class Out>
void WordPiece::cut_into(std::string_view text, std::int32_t offset, Out& out) const {
  if (!normalized_.empty()) return cut_normalized(text, offset, out);
  Cutter<Out> cutter(*this, out);
  normalizer_.run(text, offset, cutter);
  cutter.flush();
}

/// The same where added tokens are looked for in the normalised text, which is then needed whole.
template <class Out>
void WordPiece::cut_normalized(std::string_view text, std::int32_t offset, Out& out) const {
  NormalizedText normalized;
  normalizer_.run(text, offset, normalized);
  normalized_.split(normalized.text, [&](const AddedTokenMatcher::Part& part) {
    if (part.id >= 0) {
      out.put(part.id, normalized.begins[part.begin], normalized.ends[part.end - 1]);
      return;
    }
    Cutter<Out> cutter(*this, out);
    const char* const start = normalized.text.data();
    for (const char *at = start + part.begin, *end = start + part.end; at < end;) {
      const auto place = static_cast<std::size_t>(at - start);
      cutter.point(unicode::next(at), normalized.begins[place], normalized.ends[place]);
    }
    cutter.flush();
  });
}

void WordPiece::cut(std::string_view text, std::int32_t offset, std::vector<Token>& tokens) const {
  TokenSink sink{tokens};
  cut_into(text, offset, sink);
}

void WordPiece::cut(std::string_view text, std::vector<std::int32_t>& ids) const {
  IdSink sink{ids};
  cut_into(text, 0, sink);
}

std::string WordPiece::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string text;
  bool first = true;
  for (const std::int32_t id : shown(ids, skip_special)) {
    const auto other = shown_.find(id);
    std::string piece(other == shown_.end() ? token(id) : other->second);
    if (!first && options_.decoder && piece.starts_with(options_.prefix))
      piece.erase(0, options_.prefix.size());
    else if (!first)
      piece.insert(0, 1, ' ');
    first = false;
    text += options_.decoder && options_.clean_up ? cleaned_up(std::move(piece)) : piece;
  }
  return text;
}

bool WordPiece::continues_word(std::int32_t id) const {
  const std::string_view text = token(id);
  return !is_added(id) && !options_.prefix.empty() && text.size() > options_.prefix.size() &&
         text.starts_with(options_.prefix);
}

void WordPiece::save(const std::filesystem::path& folder) const {
  save_wordpiece(*this, folder);
}

}  // namespace stoa
