#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "stoa/ops/optimizer_kernels.h"
#include "stoa/optim/rules.h"

namespace stoa::optim {
namespace {

constexpr double kLargestRatioOfV1 = 10;

/// Elements per thread whose w, m and v (768 KB in fp32) wait in the second-level cache for the second pass.
constexpr std::int64_t kWaveSize = std::int64_t{1} << 16;

/// You et al. 2019: u = mhat / (sqrt(vhat) + eps) + decay w; w -= lr r u with r = |w| / |u| for each slice, 1
/// if either norm is 0. The dialects bend r (see OptimizerOptions).
class Lamb final : public Rule {
 public:
  Lamb(Updated updated, const OptimizerOptions& options)
      : Rule(std::move(updated), options, {"exp_avg", "exp_avg_sq"}),
        squares_(chunks_.list.size()),
        rates_(static_cast<std::size_t>(chunks_.slices)) {
    const bool nv = options.dialect == LambDialect::kNvLamb;
    constants_.beta1 = options.betas[0];
    constants_.fresh = nv && !options.grad_averaging ? 1 : 1 - options.betas[0];
    constants_.beta2 = options.betas[1];
    constants_.eps = options.eps;
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      adapts_.push_back(nv ? options.use_nvlamb || decay_[i] != 0 : !excluded_[i]);
    if (options.dialect == LambDialect::kV1) largest_ratio_ = kLargestRatioOfV1;
    if (options.dialect == LambDialect::kClip) largest_ratio_ = 1;
    find_waves();
  }

 protected:
  void prepare(double lr, double t) override {
    lr_ = lr;
    const bool correct = options_.bias_correction;
    constants_.mean_scale = 1 / (correct ? 1 - std::pow(options_.betas[0], t) : 1);
    constants_.root_scale = 1 / std::sqrt(correct ? 1 - std::pow(options_.betas[1], t) : 1);
    joint_scale_ = options_.dialect == LambDialect::kNvLamb ? 1 / std::max(1.0, scaled_norm()) : 1;
  }

  void update_chunks() override {
    const auto moments = [&]<class T>(std::size_t number, const Chunk&, const Span<T>& span) {
      squares_[number] = ops::optimizer_kernels<T>().lamb_moments(span.w, span.g, span.states[0],
                                                                  span.states[1], span.size, constants(span));
    };
    const auto weights = [&]<class T>(std::size_t, const Chunk& chunk, const Span<T>& span) {
      ops::optimizer_kernels<T>().lamb_weights(span.w, span.states[0], span.states[1], span.size,
                                               rates_[static_cast<std::size_t>(chunk.slice)],
                                               constants(span));
    };
    if (has_parts()) {
      for_each_span(moments);
      find_shared_rates();
      for_each_span(0, chunks_.list.size(), weights, Order::kBackwards);
      return;
    }
    for (std::size_t wave = 0; wave + 1 < waves_.size(); ++wave) {
      const auto first = waves_[wave], last = waves_[wave + 1];
      for_each_span(first, last, moments);
      find_rates(first, last);
      for_each_span(first, last, weights, Order::kBackwards);
    }
  }

  void update_on_device(std::vector<ops::DeviceParameter>& parameters,
                        const std::vector<std::size_t>& places) override {
    for (std::size_t k = 0; k < places.size(); ++k) parameters[k].adapts = adapts_[places[k]];
    auto constants = constants_;
    constants.gradient_scale = joint_scale_;
    ops::lamb_on_device(parameters, constants, lr_, largest_ratio_);
  }

  void update_lists(Lists& lists) override {
    auto &m = lists.states[0], &v = lists.states[1];
    const auto g = at::_foreach_mul(lists.g, joint_scale_);
    at::_foreach_mul_(m, options_.betas[0]);
    at::_foreach_add_(m, g, constants_.fresh);
    at::_foreach_mul_(v, options_.betas[1]);
    at::_foreach_addcmul_(v, g, g, 1 - options_.betas[1]);
    auto root = at::_foreach_sqrt(v);
    at::_foreach_mul_(root, constants_.root_scale);
    at::_foreach_add_(root, options_.eps);
    auto u = at::_foreach_mul(lists.w, scalars(lists.decay, [](double decay) { return decay; }));
    at::_foreach_addcdiv_(u, m, root, constants_.mean_scale);
    if (has_parts()) {
      subtract_parts(lists.w, u, lists.places);
      return;
    }
    for (std::size_t i = 0; i < u.size(); ++i) subtract(lists.w[i], u[i], lists.places[i]);
  }

  bool takes_norms() const override { return true; }

 private:
  template <class T>
  ops::LambConstants constants(const Span<T>& span) const {
    auto constants = constants_;
    constants.gradient_scale = joint_scale_ * span.gradient_scale;
    constants.decay = span.decay;
    return constants;
  }

  /// Cuts the chunks into waves of whole slices, of kWaveSize elements a thread at most where one slice is
  /// not larger.
  void find_waves() {
    const auto& list = chunks_.list;
    const auto most = kWaveSize * at::get_num_threads();
    std::size_t slice_begin = 0;
    waves_ = {0};
    for (std::size_t i = 1; i <= list.size(); ++i) {
      if (i < list.size() && list[i].slice == list[i - 1].slice) continue;
      if (list[i - 1].place + list[i - 1].size() - list[waves_.back()].place > most &&
          slice_begin > waves_.back())
        waves_.push_back(slice_begin);
      slice_begin = i;
    }
    if (!list.empty()) waves_.push_back(list.size());
  }

  /// lr r of every slice of a wave, from the sums of its chunks.
  void find_rates(std::size_t first, std::size_t last) {
    for (auto i = first; i < last;) {
      const auto slice = chunks_.list[i].slice;
      const bool adapts = adapts_[chunks_.list[i].tensor];
      double w = 0, u = 0;
      for (; i < last && chunks_.list[i].slice == slice; ++i) {
        w += squares_[i].w;
        u += squares_[i].u;
      }
      rates_[static_cast<std::size_t>(slice)] = rate(adapts, w, u);
    }
  }

  /// lr r from the squares of |w| and |u|.
  double rate(bool adapts, double w, double u) const {
    const double ratio = adapts && w > 0 && u > 0 ? std::sqrt(w) / std::sqrt(u) : 1;
    return lr_ * std::min(ratio, largest_ratio_);
  }

  /// lr r of every slice, from this process's squares of w and, after those of all slices, of u.
  void find_rates_of_wholes(std::vector<double> squares) {
    sum_over_parts(squares);
    const auto* const w = squares.data();
    const auto* const u = w + rates_.size();
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const auto first = static_cast<std::size_t>(chunks_.first_slice[i]);
      for (auto slice = first; slice < first + static_cast<std::size_t>(parameters_[i].slices); ++slice)
        rates_[slice] = rate(adapts_[i], w[slice], u[slice]);
    }
  }

  void find_shared_rates() {
    std::vector<double> squares(2 * rates_.size());
    for (std::size_t i = 0; i < squares_.size(); ++i) {
      const auto slice = static_cast<std::size_t>(chunks_.list[i].slice);
      squares[slice] += squares_[i].w;
      squares[rates_.size() + slice] += squares_[i].u;
    }
    find_rates_of_wholes(std::move(squares));
  }

  /// w -= lr r u for a tensor without chunks; the ratios stay on its device.
  void subtract(at::Tensor& w, const at::Tensor& u, std::size_t place) const {
    const auto slices = parameters_[place].slices, size = u.numel() / slices;
    if (!adapts_[place]) {
      w.sub_(u, lr_);
      return;
    }
    const auto norms = [&](const at::Tensor& x) {
      return at::linalg_vector_norm(x.reshape({slices, size}), 2, {1}, false, at::kDouble);
    };
    const auto w_norm = norms(w), u_norm = norms(u);
    auto ratio = at::where((w_norm > 0).logical_and(u_norm > 0), w_norm / u_norm, at::ones_like(w_norm));
    ratio = ratio.clamp_max(largest_ratio_).mul_(lr_).to(w.scalar_type());
    const auto change = u.reshape({slices, size}).mul(ratio.unsqueeze(1));
    w.sub_(change.reshape(w.sizes()));
  }

  /// The same for parts without chunks, whose ratios are those of their wholes.
  void subtract_parts(const std::vector<at::Tensor>& w, const std::vector<at::Tensor>& u,
                      const std::vector<std::size_t>& places) {
    std::vector<double> squares(rates_.size()), updates(rates_.size());
    std::vector<UnchunkedTensor> of_w, of_u;
    for (std::size_t k = 0; k < places.size(); ++k) {
      of_w.push_back(sliced_as(places[k], w[k]));
      of_u.push_back(sliced_as(places[k], u[k]));
    }
    add_square_sums(of_w, squares);
    add_square_sums(of_u, updates);
    squares.insert(squares.end(), updates.begin(), updates.end());
    find_rates_of_wholes(std::move(squares));
    for (std::size_t k = 0; k < places.size(); ++k)
      for (const auto& piece : pieces_of(sliced_[places[k]])) {
        const auto slice = static_cast<std::size_t>(chunks_.first_slice[places[k]] + piece.slice);
        cut(of_w[k].sliced, piece).sub_(cut(of_u[k].sliced, piece), rates_[slice]);
      }
  }

  std::vector<bool> adapts_;
  std::vector<std::size_t> waves_;  // first chunk of each, and the number of chunks
  std::vector<ops::LambSquares> squares_;
  std::vector<double> rates_;
  ops::LambConstants constants_;
  double lr_ = 0, joint_scale_ = 1;
  double largest_ratio_ = std::numeric_limits<double>::infinity();
};

}  // namespace

std::unique_ptr<Optimizer> make_lamb(Updated updated, const OptimizerOptions& options) {
  return std::make_unique<Lamb>(std::move(updated), options);
}

}  // namespace stoa::optim
