#include "stoa/optim/optimizer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "stoa/base/errors.h"
#include "stoa/base/format.h"
#include "stoa/base/progress.h"
#include "stoa/optim/part.h"
#include "stoa/optim/rules.h"
#include "stoa/optim/state.h"
#include "stoa/tensor/shape.h"

namespace stoa::optim {
namespace {

constexpr double kLambEps = 1e-6;

void require(bool holds, const char* field, double value, const char* needed) {
  if (!holds) throw ConfigError(format("`optimizer.{}` is {}; it must be {}", field, value, needed));
}

void check_parameter(const nn::NamedParameter& parameter) {
  const auto& [name, tensor, slices] = parameter;
  if (!tensor.is_floating_point())
    throw ConfigError(format("parameter `{}` is of type {}; optimisers need floating-point parameters", name,
                             c10::toString(tensor.scalar_type())));
  if (slices < 1 || (slices > 1 && (tensor.dim() == 0 || tensor.size(0) % slices != 0)))
    throw ShapeError(
        format("parameter `{}` has shape {}, which cannot be cut into {} slices along dimension 0", name,
               shape_text(tensor.sizes()), slices));
}

void check_part(const PartialParameter& parameter) {
  const auto& [whole, part, begin] = parameter;
  if (part.is_same(whole.tensor)) return;
  if (part.dim() != 1 || begin < 0 || begin + part.numel() > whole.tensor.numel())
    throw ShapeError(format("parameter `{}` has {} elements; a part of shape {} cannot begin at element {}",
                            whole.name, whole.tensor.numel(), shape_text(part.sizes()), begin));
}

std::unique_ptr<Optimizer> make_rule(Updated updated, const OptimizerOptions& options) {
  options.validate();
  auto& parameters = updated.parameters;
  std::erase_if(parameters, [](const PartialParameter& p) { return !p.whole.tensor.requires_grad(); });
  if (parameters.empty()) throw ConfigError("optimizer: the model has no parameter to train; unfreeze one");
  std::unordered_map<const void*, std::string> names;
  for (const auto& [whole, part, begin] : parameters) {
    check_parameter(whole);
    const auto [first, added] = names.emplace(whole.tensor.unsafeGetTensorImpl(), whole.name);
    if (!added)
      throw ConfigError(format(
          "parameters `{}` and `{}` are one tensor, which would be updated twice; pass distinct_parameters()",
          first->second, whole.name));
  }
  for (const auto& text : options.exclude)
    if (std::none_of(parameters.begin(), parameters.end(),
                     [&](const PartialParameter& p) { return p.whole.name.find(text) != std::string::npos; }))
      log_warning(format("optimizer: exclude: no parameter's name contains \"{}\"", text));
  switch (options.kind) {
    case OptimizerKind::kSgd:
      return make_sgd(std::move(updated), options);
    case OptimizerKind::kAdamW:
      return make_adamw(std::move(updated), options);
    default:
      return make_lamb(std::move(updated), options);
  }
}

}  // namespace

void OptimizerOptions::visit(FieldVisitor& v) {
  const auto before = kind;
  v.preset("name", kind,
           {{"sgd", OptimizerKind::kSgd}, {"adamw", OptimizerKind::kAdamW}, {"lamb", OptimizerKind::kLamb}},
           "update rule; lamb sets eps to 1e-6", [&] {
             if (kind != before) eps = kind == OptimizerKind::kLamb ? kLambEps : OptimizerOptions().eps;
           });
  v.field("lr", lr, "peak learning rate");
  v.field("weight_decay", weight_decay,
          "weight decay: decoupled (adamw), inside the update (lamb), added to the gradient (sgd)");
  v.when(kind != OptimizerKind::kSgd, "name = \"adamw\" or \"lamb\"", [&] {
    v.field("betas", betas, "how much of the two moments each step keeps");
    v.field("eps", eps, "added to the root of the second moment");
    v.field("bias_correction", bias_correction, "divide young moments by the weight they have gathered");
  });
  v.when(kind == OptimizerKind::kAdamW, "name = \"adamw\"", [&] {
    v.field("decoupled", decoupled, "true: AdamW; false: Adam, the decay added to the gradient");
    v.field("keras_eps", keras_eps, "eps added to the root before its bias correction, as Keras does");
  });
  v.when(kind == OptimizerKind::kSgd, "name = \"sgd\"", [&] {
    v.field("momentum", momentum, "how much of the velocity each step keeps");
    v.field("dampening", dampening, "share of the gradient that does not enter the velocity");
    v.field("nesterov", nesterov, "Nesterov's momentum");
  });
  v.when(kind == OptimizerKind::kLamb, "name = \"lamb\"", [&] {
    v.choice("dialect", dialect,
             {{"paper", LambDialect::kPaper},
              {"nvlamb", LambDialect::kNvLamb},
              {"v1", LambDialect::kV1},
              {"clip", LambDialect::kClip}},
             "paper; nvlamb: gradients first divided by max(1, joint norm), no ratio without decay; v1: "
             "ratio at most 10; clip: at most 1");
    v.field("use_nvlamb", use_nvlamb, "dialect nvlamb: trust ratio also for tensors without decay");
    v.field("grad_averaging", grad_averaging,
            "dialect nvlamb: the gradient enters the first moment times 1 - beta, not whole");
  });
  v.field("exclude_vectors", exclude_vectors,
          "no decay and no trust ratio for biases, norms and other vectors");
  v.field("exclude", exclude, "no decay and no trust ratio for parameters whose names contain one of these");
}

void OptimizerOptions::validate() const {
  const auto in_unit = [](double value) { return value >= 0 && value < 1; };
  require(std::isfinite(lr) && lr >= 0, "lr", lr, ">= 0");
  require(std::isfinite(weight_decay) && weight_decay >= 0, "weight_decay", weight_decay, ">= 0");
  if (std::find(exclude.begin(), exclude.end(), "") != exclude.end())
    throw ConfigError("`optimizer.exclude` has an empty text, which every name contains; remove it");
  if (kind == OptimizerKind::kSgd) {
    require(in_unit(momentum), "momentum", momentum, ">= 0 and below 1");
    require(dampening >= 0 && dampening <= 1, "dampening", dampening, "0 to 1");
    if (nesterov && (momentum == 0 || dampening != 0))
      throw ConfigError(format(
          "`optimizer.nesterov` needs `optimizer.momentum` above 0 and `optimizer.dampening` 0; they are {} "
          "and {}",
          momentum, dampening));
    return;
  }
  if (betas.size() != 2)
    throw ConfigError(
        format("`optimizer.betas` has {} numbers; two are needed, e.g. [0.9, 0.999]", betas.size()));
  for (const auto beta : betas) require(in_unit(beta), "betas", beta, ">= 0 and below 1, both");
  require(std::isfinite(eps) && eps >= 0, "eps", eps, ">= 0");
  if (kind == OptimizerKind::kLamb && dialect != LambDialect::kNvLamb && (use_nvlamb || !grad_averaging))
    throw ConfigError(
        format("`optimizer.{}` = {} belongs to `optimizer.dialect` = \"nvlamb\"; set that or leave it out",
               use_nvlamb ? "use_nvlamb" : "grad_averaging", use_nvlamb));
}

void Optimizer::load(const std::map<std::string, at::Tensor>& state, const std::string& source) {
  copy_state(state, this->state(), source);
}

void Optimizer::zero_grad() {
  for (const auto& parameter : parameters_) parameter.tensor.mutable_grad().reset();
}

std::unique_ptr<Optimizer> make_optimizer(std::vector<nn::NamedParameter> parameters,
                                          const OptimizerOptions& options) {
  return make_optimizer(std::move(parameters), options, {}, {});
}

std::unique_ptr<Optimizer> make_optimizer(std::vector<nn::NamedParameter> parameters,
                                          const OptimizerOptions& options, SumOverParts sum,
                                          JointSquare joint) {
  std::vector<PartialParameter> all;
  for (auto& parameter : parameters) {
    const auto tensor = parameter.tensor;
    all.push_back({std::move(parameter), tensor});
  }
  return make_rule({std::move(all), std::move(sum), std::move(joint)}, options);
}

std::unique_ptr<Optimizer> make_optimizer(std::vector<PartialParameter> parameters,
                                          const OptimizerOptions& options, SumOverParts sum,
                                          JointSquare joint) {
  for (const auto& parameter : parameters) check_part(parameter);
  if (!sum) sum = [](std::vector<double>&) {};  // one process has all
  return make_rule({std::move(parameters), std::move(sum), std::move(joint)}, options);
}

}  // namespace stoa::optim
