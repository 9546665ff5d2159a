#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace stoa {

/// The library of that name, as a module that is loaded when a model is (sentencepiece_module.cpp). It may
/// not be linked: libsentencepiece and LibTorch's libc10 both define FLAGS_minloglevel, of different types,
/// and the loader would make one of them, so that one library writes over the other's memory.
class SentencePieceModel {
 public:
  struct Piece {
    std::int32_t id, begin, end;  ///< and the bytes of the text that it stands for
  };
  virtual ~SentencePieceModel() = default;
  virtual std::int32_t size() const = 0;
  virtual std::string piece(std::int32_t id) const = 0;
  virtual bool is_control(std::int32_t id) const = 0;
  virtual bool is_unknown(std::int32_t id) const = 0;
  virtual std::int32_t pad() const = 0;  ///< negative for none, as the following
  virtual std::int32_t unknown() const = 0;
  virtual std::int32_t begin() const = 0;
  virtual std::int32_t end() const = 0;
  virtual std::vector<Piece> pieces(std::string_view text) const = 0;
  virtual void encode(std::string_view text, std::vector<std::int32_t>& ids) const = 0;  ///< appends
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;
};

/// What the module exports under kOpenSentencePiece: the model in some bytes, or null where they are none.
using OpenSentencePiece = SentencePieceModel*(const char* bytes, std::size_t size);
inline constexpr const char* kOpenSentencePiece = "stoa_open_sentencepiece";

}  // namespace stoa
