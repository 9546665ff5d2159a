// The module stoa_sentencepiece.so: nothing but libsentencepiece behind the interface that sentencepiece.cpp
// loads.
#include <sentencepiece_processor.h>

#include "stoa/data/text/sentencepiece_model.h"

namespace stoa {
namespace {

class Model final : public SentencePieceModel {
 public:
  bool load(std::string_view bytes) {
    return processor_.LoadFromSerializedProto(bytes).ok() && processor_.GetPieceSize() > 0;
  }
  std::int32_t size() const override { return processor_.GetPieceSize(); }
  std::string piece(std::int32_t id) const override { return processor_.IdToPiece(id); }
  bool is_control(std::int32_t id) const override { return processor_.IsControl(id); }
  bool is_unknown(std::int32_t id) const override { return processor_.IsUnknown(id); }
  std::int32_t pad() const override { return processor_.pad_id(); }
  std::int32_t unknown() const override { return processor_.unk_id(); }
  std::int32_t begin() const override { return processor_.bos_id(); }
  std::int32_t end() const override { return processor_.eos_id(); }
  std::vector<Piece> pieces(std::string_view text) const override {
    const auto found = processor_.EncodeAsImmutableProto(text);
    std::vector<Piece> pieces;
    for (std::size_t i = 0; i < found.pieces_size(); ++i) {
      const auto piece = found.pieces(static_cast<int>(i));
      pieces.push_back({static_cast<std::int32_t>(piece.id()), static_cast<std::int32_t>(piece.begin()),
                        static_cast<std::int32_t>(piece.end())});
    }
    return pieces;
  }
  void encode(std::string_view text, std::vector<std::int32_t>& ids) const override {
    const auto found = processor_.EncodeAsIds(text);
    ids.insert(ids.end(), found.begin(), found.end());
  }
  std::string decode(std::span<const std::int32_t> ids) const override {
    return processor_.DecodeIds({ids.begin(), ids.end()});
  }

 private:
  sentencepiece::SentencePieceProcessor processor_;
};

}  // namespace
}  // namespace stoa

extern "C" stoa::SentencePieceModel* stoa_open_sentencepiece(const char* bytes, std::size_t size) {
  auto model = std::make_unique<stoa::Model>();
  return model->load({bytes, size}) ? model.release() : nullptr;
}
