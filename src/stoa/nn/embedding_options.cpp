#include <cmath>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/nn/embedding_tables.h"

namespace stoa::nn {

void EmbeddingOptions::visit(FieldVisitor& v) {
  v.field("dim", dim, "width of an embedding");
  v.field("lr", lr, "learning rate of the tables, constant and without warm-up");
  v.field("l2", l2,
          "lambda: the loss counts lambda w^2 for every weight of every row, so gradients have 2 lambda w");
  v.field("betas", betas, "how much of the two moments each step keeps");
  v.field("eps", eps,
          "added to the root of the second moment, outside the bias correction (Keras' form of Adam)");
  v.field("init_std", init_std, "standard deviation of new embeddings; linear weights start at 0");
  v.field("same_rows", same_rows,
          "row i of every field starts alike, as in the original program, where that is probably a mistake");
  v.choice(
      "absent", absent,
      {{"dense", AbsentRows::kDense},
       {"replay", AbsentRows::kReplay},
       {"strided", AbsentRows::kStrided},
       {"lazy", AbsentRows::kLazy}},
      "rows in no batch: updated at every step (dense), the same made when a row is read next (replay), its "
      "steps taken in growing strides (strided), or never (lazy: another algorithm, which over-fits)");
  v.choice("clip", clip,
           {{"none", RowClip::kNone},
            {"global", RowClip::kGlobal},
            {"field", RowClip::kField},
            {"id_const", RowClip::kIdConst},
            {"field_adaptive", RowClip::kFieldAdaptive},
            {"cowclip", RowClip::kCowClip}},
           "what holds a gradient: the norm of a row against its weights and count (cowclip), or against "
           "clip_floor "
           "and count (id_const); the norm over all rows (global) or a field's (field) against clip_floor; a "
           "field's "
           "against its weights (field_adaptive)");
  v.field("clip_ratio", clip_ratio,
          "r: gradient norm allowed for a weight norm of 1 (cowclip, field_adaptive)");
  v.field("clip_floor", clip_floor,
          "zeta: least weight norm counted, or the constant norm of the other clips");
  v.choice(
      "floor", floor, {{"code", ClipFloor::kCode}, {"paper", ClipFloor::kPaper}},
      "weight norms count as at least r sqrt(dim) zeta before r is applied (code), or r |w| as at least zeta "
      "(paper)");
  v.field("storage", storage,
          "folder on a local disk for tables larger than memory; empty keeps them in memory. The files have "
          "no name "
          "and vanish with the run");
}

namespace {

[[noreturn]] void refuse(const char* name, double value, const char* needed) {
  throw ConfigError(format("embedding.{} is {}; {} is needed", name, value, needed));
}

void check_not_negative(const char* name, double value) {
  if (!(value >= 0) || !std::isfinite(value)) refuse(name, value, "a finite number of 0 or more");
}

}  // namespace

void EmbeddingOptions::validate() const {
  constexpr std::int64_t kWidest = 4096;
  if (dim < 1 || dim > kWidest) refuse("dim", static_cast<double>(dim), "a width from 1 to 4096");
  check_not_negative("lr", lr);
  check_not_negative("l2", l2);
  check_not_negative("init_std", init_std);
  check_not_negative("clip_floor", clip_floor);
  if (betas.size() != 2)
    throw ConfigError(format("embedding.betas has {} numbers; two are needed", betas.size()));
  for (const double beta : betas)
    if (!(beta >= 0 && beta < 1)) refuse("betas", beta, "a number in [0, 1)");
  if (!(eps >= 1e-30) || !std::isfinite(eps)) refuse("eps", eps, "a finite number above 0 (1e-30 or more)");
  if (!(clip_ratio > 0) || !std::isfinite(clip_ratio))
    refuse("clip_ratio", clip_ratio, "a finite number above 0");
  const bool constant_norm = clip == RowClip::kGlobal || clip == RowClip::kField || clip == RowClip::kIdConst;
  if (constant_norm && clip_floor == 0)
    refuse("clip_floor", clip_floor, "with this embedding.clip a norm above 0");
  // rows in no batch are not clipped, which is right only while their gradient 2 l2 w is below r |w|
  if (clip == RowClip::kCowClip && 2 * l2 >= clip_ratio)
    throw ConfigError(
        format("embedding.l2 is {} with clip_ratio {}; less than half of clip_ratio is needed, or the "
               "gradient of L2 itself would be clipped",
               l2, clip_ratio));
}

}  // namespace stoa::nn
