#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "stoa/nn/moe/expert_exchange.h"
#include "stoa/ops/mixture.h"

// The experts' work on rows of tokens, here or at other processes. Internal to nn/moe/ and its tests.
namespace stoa::nn {

/// Dropout inside experts. On the CPU what is dropped depends on the call's number and a row's key alone.
struct ExpertDropout {
  double rate = 0;
  at::Tensor keys;                ///< [assignments] int64 on the CPU, where the rate is not 0
  std::int64_t first_hidden = 0;  ///< of the hidden units at hand among all of an expert's
};

/// ops::mixture() with dropout behind both activations.
at::Tensor mix_here(const at::Tensor& x, const ops::Assignments& assignments,
                    const ops::ExpertWeights& weights, const ops::MixtureSettings& settings,
                    const ExpertDropout& dropout);

/// The same where `experts` experts are dealt out and `weights` are those of this process: rows travel to the
/// holders of their experts (all-to-all) and the answers back, in the backward pass likewise. Each row is
/// sent once an assignment. Every holder makes the same calls, whatever it has to send.
at::Tensor mix_at_holders(const at::Tensor& x, const ops::Assignments& assignments, std::int64_t experts,
                          const ops::ExpertWeights& weights, const ops::MixtureSettings& settings,
                          const ExpertDropout& dropout, std::shared_ptr<const ExpertExchange> exchange);

}  // namespace stoa::nn
