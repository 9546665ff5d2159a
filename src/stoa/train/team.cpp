#include "stoa/train/team.h"

#include <ATen/ATen.h>

#include <cstring>

#include "stoa/base/checksum.h"
#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/dist/table_exchange.h"

namespace stoa {

Team::Team(const dist::ParallelOptions& options) : options_(options) {
  const auto place = dist::read_place();
  const auto wanted = options.for_processes(place.world);
  if (place.world == 1) {
    if (wanted.size() > 1)
      throw ConfigError(
          format("the recipe's [parallel] is for {0} processes and this is one; start it with "
                 "stoa launch -n {0} -- train ..., or change `parallel.{1}`",
                 wanted.size(),
                 wanted.data > 1       ? "data"
                 : wanted.sequence > 1 ? "sequence"
                 : wanted.tensor > 1   ? "tensor"
                                       : "pipeline"));
    return;
  }
  dist::WorldOptions world_options;
  world_options.timeout_s = options.timeout;
  world_ = dist::World::join(place, world_options);
  mesh_.emplace(*world_, options);
}

dist::SequenceSplit Team::split() const {
  if (!splits_sequences()) return {};
  return {mesh_->shared(dist::GroupKind::kSequence), options_.attention, options_.order,
          static_cast<int>(options_.ulysses)};
}

dist::SplitWeights Team::split_weights(torch::nn::Module& model) const {
  if (alone() || mesh_->tensor().size() == 1) return {};
  return {model, mesh_->shared(dist::GroupKind::kTensor)};
}

dist::SplitLayers Team::split_layers(torch::nn::Module& model) const {
  if (alone() || mesh_->pipeline().size() == 1) return {};
  return {model, mesh_->shared(dist::GroupKind::kPipeline)};
}

dist::ExpertParallel Team::share_experts(torch::nn::Module& model, bool together) const {
  if (alone() || mesh_->data().size() == 1) return {};
  if (mesh_->expert().size() == 1 && !dist::has_mixtures(model)) return {};
  return {model,
          {mesh_->shared(dist::GroupKind::kData), mesh_->shared(dist::GroupKind::kExpert),
           mesh_->shared(dist::GroupKind::kExpertData)},
          together};
}

std::shared_ptr<nn::RowExchange> Team::row_exchange() const {
  if (partners() == nullptr) return nullptr;
  return std::make_shared<dist::TableExchange>(mesh_->shared(dist::GroupKind::kDataSequence));
}

void Team::agree(const std::string& what, const std::string& text) const {
  if (!alone())
    world_->agree(what, crc32({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}) |
                            std::uint64_t{text.size()} << 32);
}

std::string Team::of_leader(const std::string& text) const {
  if (alone()) return text;
  const auto size = at::full({1}, static_cast<std::int64_t>(text.size()), at::kLong);
  world_->all().broadcast(size, 0);
  const auto bytes = at::empty({size.item<std::int64_t>()}, at::kByte);
  if (leads()) std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  world_->all().broadcast(bytes, 0);
  return {static_cast<const char*>(bytes.const_data_ptr()), static_cast<std::size_t>(bytes.numel())};
}

bool Team::any(bool yes) const {
  if (alone()) return yes;
  const auto flag = at::full({1}, yes ? 1 : 0, at::kInt);
  world_->all().all_reduce(flag, dist::Reduce::kMax);
  return flag.item<int>() != 0;
}

std::string Team::text() const {
  return alone() ? "" : format(", {} processes", world_->size());
}

}  // namespace stoa
