#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "stoa/ops/optimizer_kernels.h"

// The update rules over parameters on a GPU, by the kernels of optimizer_cuda.h: all parameters in one launch
// (LAMB: three), however many there are.
namespace stoa::ops {

/// A parameter as a rule sees it. States have its type, sizes and device, and so does the gradient, unless it
/// is undefined, which counts as 0. `w` falls into `slices` equal parts along dimension 0.
struct DeviceParameter {
  at::Tensor w, g;
  std::vector<at::Tensor> states;
  std::int64_t slices = 1;
  std::vector<double> gradient_scales;  ///< one, or one for each slice
  double decay = 0;
  bool adapts = false;  ///< does LAMB scale its rate?
};

/// True where the kernels are built in and can update `tensor`: fp32 or fp64, contiguous, on a GPU.
bool has_optimizer_kernels(const at::Tensor& tensor);

/// One step of every parameter; gradient_scale and decay of the constants are the parameters' own.
/// has_optimizer_kernels() must hold for all. Throws DeviceError if a launch fails.
void adamw_on_device(const std::vector<DeviceParameter>& parameters, const AdamWConstants& constants,
                     double lr, bool decoupled);
void sgd_on_device(const std::vector<DeviceParameter>& parameters, const SgdConstants& constants);
/// The constants' gradient_scale is multiplied with the parameters'.
void lamb_on_device(const std::vector<DeviceParameter>& parameters, const LambConstants& constants, double lr,
                    double largest_ratio);

}  // namespace stoa::ops
