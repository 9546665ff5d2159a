#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "stoa/optim/clip.h"
#include "stoa/optim/rules.h"

namespace stoa::optim {
namespace {

constexpr double kLargestRatioOfV1 = 10;

/// You et al. 2019: u = mhat / (sqrt(vhat) + eps) + decay w; w -= lr r u with r = |w| / |u| for each slice, 1
/// if either norm is 0. The dialects bend r (see OptimizerOptions).
class Lamb final : public Rule {
 public:
  Lamb(std::vector<nn::NamedParameter> parameters, const OptimizerOptions& options)
      : Rule(std::move(parameters), options, {"exp_avg", "exp_avg_sq"}),
        w_squares_(chunks_.list.size()),
        u_squares_(chunks_.list.size()),
        rates_(static_cast<std::size_t>(chunks_.slices)) {
    const bool nv = options.dialect == LambDialect::kNvLamb;
    fresh_ = nv && !options.grad_averaging ? 1 : 1 - options.betas[0];
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      adapts_.push_back(nv ? options.use_nvlamb || decay_[i] != 0 : !excluded_[i]);
    if (options.dialect == LambDialect::kV1) largest_ratio_ = kLargestRatioOfV1;
    if (options.dialect == LambDialect::kClip) largest_ratio_ = 1;
  }

 protected:
  void prepare(double lr, double t) override {
    lr_ = lr;
    const bool correct = options_.bias_correction;
    mean_scale_ = 1 / (correct ? 1 - std::pow(options_.betas[0], t) : 1);
    root_scale_ = 1 / std::sqrt(correct ? 1 - std::pow(options_.betas[1], t) : 1);
    gradient_scale_ =
        options_.dialect == LambDialect::kNvLamb ? 1 / std::max(1.0, gradient_norm(parameters_)) : 1;
  }

  void update_chunks() override {
    for_each_chunk(chunks_, [&](std::size_t number, const Chunk& chunk) {
      with_element_type(parameters_[chunk.tensor].tensor,
                        [&](auto type) { update_moments<decltype(type)>(number, chunk); });
    });
    find_rates();
    for_each_chunk(chunks_, [&](std::size_t, const Chunk& chunk) {
      with_element_type(parameters_[chunk.tensor].tensor,
                        [&](auto type) { update_weights<decltype(type)>(chunk); });
    });
  }

  void update_lists(Lists& lists) override {
    auto &m = lists.states[0], &v = lists.states[1];
    const auto g = at::_foreach_mul(lists.g, gradient_scale_);
    at::_foreach_mul_(m, options_.betas[0]);
    at::_foreach_add_(m, g, fresh_);
    at::_foreach_mul_(v, options_.betas[1]);
    at::_foreach_addcmul_(v, g, g, 1 - options_.betas[1]);
    auto root = at::_foreach_sqrt(v);
    at::_foreach_mul_(root, root_scale_);
    at::_foreach_add_(root, options_.eps);
    auto u = at::_foreach_mul(lists.w, scalars(lists.decay, [](double decay) { return decay; }));
    at::_foreach_addcdiv_(u, m, root, mean_scale_);
    for (std::size_t i = 0; i < u.size(); ++i) subtract(lists.w[i], u[i], lists.places[i]);
  }

 private:
  template <class T>
  struct Constants {
    explicit Constants(const Lamb& lamb, const Chunk& chunk)
        : scale(static_cast<T>(lamb.mean_scale_)),
          root_scale(static_cast<T>(lamb.root_scale_)),
          eps(static_cast<T>(lamb.options_.eps)),
          decay(static_cast<T>(lamb.decay_[chunk.tensor])) {}
    T update(T w, T m, T v) const { return m * scale / (std::sqrt(v) * root_scale + eps) + decay * w; }
    T scale, root_scale, eps, decay;
  };

  /// First pass: m, v and the chunk's shares of |w|^2 and |u|^2.
  template <class T>
  void update_moments(std::size_t number, const Chunk& chunk) {
    const T* __restrict w = weight<T>(chunk);
    const T* __restrict g = gradient<T>(chunk);
    T* __restrict m = state_of<T>(0, chunk);
    T* __restrict v = state_of<T>(1, chunk);
    const T beta1 = static_cast<T>(options_.betas[0]), fresh = static_cast<T>(fresh_);
    const T beta2 = static_cast<T>(options_.betas[1]), rest2 = static_cast<T>(1 - options_.betas[1]);
    const T gradient_scale = static_cast<T>(gradient_scale_);
    const Constants<T> constants(*this, chunk);
    const auto size = chunk.end - chunk.begin;
    double w_square = 0, u_square = 0;
#pragma omp simd reduction(+ : w_square, u_square)
    for (std::int64_t i = 0; i < size; ++i) {
      const T slope = gradient_scale * g[i];
      m[i] = beta1 * m[i] + fresh * slope;
      v[i] = beta2 * v[i] + rest2 * slope * slope;
      const double u = constants.update(w[i], m[i], v[i]);
      w_square += static_cast<double>(w[i]) * static_cast<double>(w[i]);
      u_square += u * u;
    }
    w_squares_[number] = w_square;
    u_squares_[number] = u_square;
  }

  /// Second pass: computing u again is cheaper than keeping it.
  template <class T>
  void update_weights(const Chunk& chunk) const {
    T* __restrict w = weight<T>(chunk);
    const T* __restrict m = state_of<T>(0, chunk);
    const T* __restrict v = state_of<T>(1, chunk);
    const T rate = static_cast<T>(rates_[static_cast<std::size_t>(chunk.slice)]);
    const Constants<T> constants(*this, chunk);
    const auto size = chunk.end - chunk.begin;
#pragma omp simd
    for (std::int64_t i = 0; i < size; ++i) w[i] -= rate * constants.update(w[i], m[i], v[i]);
  }

  /// lr r of every slice, from the sums of its chunks.
  void find_rates() {
    std::vector<double> w(rates_.size()), u(rates_.size());
    std::vector<bool> adapts(rates_.size());
    for (std::size_t i = 0; i < chunks_.list.size(); ++i) {
      const auto slice = static_cast<std::size_t>(chunks_.list[i].slice);
      w[slice] += w_squares_[i];
      u[slice] += u_squares_[i];
      adapts[slice] = adapts_[chunks_.list[i].tensor];
    }
    for (std::size_t i = 0; i < rates_.size(); ++i) {
      const double ratio = adapts[i] && w[i] > 0 && u[i] > 0 ? std::sqrt(w[i]) / std::sqrt(u[i]) : 1;
      rates_[i] = lr_ * std::min(ratio, largest_ratio_);
    }
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

  std::vector<bool> adapts_;
  std::vector<double> w_squares_, u_squares_, rates_;
  double lr_ = 0, fresh_ = 0.1, mean_scale_ = 1, root_scale_ = 1, gradient_scale_ = 1;
  double largest_ratio_ = std::numeric_limits<double>::infinity();
};

}  // namespace

std::unique_ptr<Optimizer> make_lamb(std::vector<nn::NamedParameter> parameters,
                                     const OptimizerOptions& options) {
  return std::make_unique<Lamb>(std::move(parameters), options);
}

}  // namespace stoa::optim
