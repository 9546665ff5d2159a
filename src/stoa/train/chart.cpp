#include "stoa/train/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "stoa/base/format.h"
#include "stoa/base/text.h"
#include "stoa/train/html.h"

namespace stoa::html {

namespace {

constexpr std::size_t kColours = 8;
constexpr std::size_t kPoints = 400, kSmallPoints = 120;  // a line has no more than these
constexpr std::size_t kMarked = 12;                       // up to so many points each is marked
constexpr std::size_t kLabelledLines = 8;                 // labels at the ends of more lines would crowd
constexpr std::size_t kLabelLength = 26;                  // characters
constexpr double kLabelDistance = 15;                     // pixels between the baselines of labels
constexpr double kCharacter = 7.3;                        // pixels a character of 12 px takes, generously
constexpr int kSmallHeight = 150;                         // charts below it have few ticks
constexpr double kWidth = 1000;  // units across the drawing, whatever its width on the screen

// One axis: data to drawing, and where its ticks stand.
struct Axis {
  std::vector<double> ticks;
  double low = 0, high = 1;
  double share(double value) const { return (value - low) / (high - low); }
};

std::string colour_class(int colour) {
  return colour < 0 ? "plain" : format("c{}", static_cast<std::size_t>(colour) % kColours);
}

// Beyond the palette colours repeat, dashed.
bool dashed(const ChartLine& line) {
  return line.colour >= static_cast<int>(kColours);
}

// The mean of each run of neighbours, so that no more than `points` are left.
ChartLine thinned(const ChartLine& line, std::size_t points) {
  const std::size_t step = (line.x.size() + points - 1) / points;
  if (step <= 1) return line;
  ChartLine result = line;
  result.x.clear();
  result.y.clear();
  for (std::size_t begin = 0; begin < line.x.size(); begin += step) {
    const std::size_t end = std::min(begin + step, line.x.size());
    double x = 0, y = 0;
    for (std::size_t i = begin; i < end; ++i) {
      x += line.x[i];
      y += line.y[i];
    }
    result.x.push_back(x / static_cast<double>(end - begin));
    result.y.push_back(y / static_cast<double>(end - begin));
  }
  return result;
}

std::string tick_text(double value, double step) {
  if (std::abs(value) < step * 1e-6) return "0";
  if (std::max(std::abs(value), step) >= 1e6 || step < 1e-5) return format("{:.3g}", value);
  const int digits = std::max(0, static_cast<int>(-std::floor(std::log10(step) + 1e-9)));
  return digits == 0 ? thousands(std::llround(value)) : format("{:.{}f}", value, digits);
}

double step_of(const std::vector<double>& ticks) {
  if (ticks.size() > 1) return ticks[1] - ticks[0];
  return ticks.empty() || ticks[0] == 0 ? 1 : std::pow(10, std::floor(std::log10(std::abs(ticks[0]))) - 1);
}

Axis x_axis(const std::vector<ChartLine>& lines, int count) {
  Axis axis{{}, std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  bool whole = true;
  for (const auto& line : lines)
    for (const double x : line.x) {
      axis.low = std::min(axis.low, x);
      axis.high = std::max(axis.high, x);
      whole = whole && x == std::floor(x);
    }
  if (!(axis.low < axis.high)) {
    const double middle = std::isfinite(axis.low) ? axis.low : 0;
    axis.low = middle - 1;
    axis.high = middle + 1;
  }
  for (const double tick : round_ticks(axis.low, axis.high, count))
    if (tick >= axis.low && tick <= axis.high && (!whole || tick == std::floor(tick)))
      axis.ticks.push_back(tick);
  return axis;
}

Axis y_axis(std::pair<double, double> range, int count) {
  auto [low, high] = range;
  if (low == high) {
    const double pad = low == 0 ? 1 : std::abs(low) / 2;
    low -= low > 0 || low < 0 ? pad : 0;
    high += pad;
  }
  if (low > 0 && low < 0.25 * high) low = 0;
  Axis axis;
  axis.ticks = round_ticks(low, high, count);
  axis.low = axis.ticks.front();
  axis.high = axis.ticks.back();
  return axis;
}

// What is drawn of one chart. Across, places are shares of the width; down, pixels.
class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart) {
    const bool small = chart.height < kSmallHeight;
    for (const auto& line : chart.lines) lines_.push_back(thinned(line, small ? kSmallPoints : kPoints));
    x_ = x_axis(chart.lines, small ? 3 : 5);
    if (small && x_.ticks.size() > 1) x_.ticks = {x_.ticks.back()};
    y_ = y_axis(chart.range.value_or(value_range(lines_)), small ? 2 : 5);
    place_labels();
  }

  std::string html() const {
    std::size_t tick_length = 1;
    for (const double tick : y_.ticks)
      tick_length = std::max(tick_length, length(tick_text(tick, step_of(y_.ticks))));
    const std::string name =
        chart_.y_title.empty() ? "" : format("<p class=\"name\">{}</p>\n", escape(chart_.y_title));
    std::string keys = chart_.legend ? legend(lines_) : "";
    if (!labels_.empty())
      keys = element("div", keys, "direct-legend");  // shown where there is no room for labels
    return format(
        "{}<div class=\"chart{}\" style=\"--ticks:{:.0f}px;--labels:{:.0f}px\">\n{}"
        "<svg height=\"{}\" role=\"img\" aria-label=\"{}\">\n{}{}{}</svg>\n</div>\n",
        keys, labels_.empty() ? "" : " direct", 12 + 7.0 * static_cast<double>(tick_length), label_width_,
        name, chart_.height, escape(description()), axes(), paths(), marks());
  }

 private:
  struct Label {
    const ChartLine* line;
    double y;
  };

  double down(double value) const { return chart_.height * (1 - y_.share(value)); }
  double across(double value) const { return x_.share(value); }

  // Labels stand beside the last points, moved apart where they would overlap.
  void place_labels() {
    if (!chart_.legend) return;
    std::size_t longest = 0;
    for (const auto& line : lines_) {
      if (line.name.empty() || line.y.empty() || !std::isfinite(line.y.back())) continue;
      labels_.push_back({&line, down(line.y.back())});
      longest = std::max(longest, length(line.name));
    }
    if (labels_.size() < 2 || labels_.size() > kLabelledLines || longest > kLabelLength)
      return labels_.clear();
    label_width_ = 14 + kCharacter * static_cast<double>(longest);
    std::ranges::stable_sort(labels_, {}, &Label::y);
    for (std::size_t i = 1; i < labels_.size(); ++i)
      labels_[i].y = std::max(labels_[i].y, labels_[i - 1].y + kLabelDistance);
    double limit = chart_.height;
    for (auto label = labels_.rbegin(); label != labels_.rend(); ++label) {
      label->y = std::min(label->y, limit);
      limit = label->y - kLabelDistance;
    }
  }

  std::string axes() const {
    std::string svg;
    for (const double tick : y_.ticks)
      svg += format(
          "<line class=\"{}\" x1=\"0\" x2=\"100%\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
          "<text class=\"y\" x=\"0\" dx=\"-8\" y=\"{:.1f}\" dy=\"0.34em\">{}</text>\n",
          tick == y_.low ? "base" : "grid-line", down(tick), down(tick), down(tick),
          tick_text(tick, step_of(y_.ticks)));
    for (const double tick : x_.ticks)
      svg += format(
          "<line class=\"base\" x1=\"{0:.2f}%\" x2=\"{0:.2f}%\" y1=\"{1}\" y2=\"{2}\"/>"
          "<text class=\"x\" x=\"{0:.2f}%\" y=\"{1}\" dy=\"19\">{3}</text>\n",
          100 * across(tick), chart_.height, chart_.height + 5, tick_text(tick, step_of(x_.ticks)));
    if (!chart_.x_title.empty())
      svg += format("<text class=\"x title\" x=\"100%\" y=\"{}\" dy=\"36\">{}</text>\n", chart_.height,
                    escape(chart_.x_title));
    return svg;
  }

  std::string paths() const {
    std::string svg = format(
        "<svg viewBox=\"0 0 {} {}\" width=\"100%\" height=\"{}\" preserveAspectRatio=\"none\" "
        "overflow=\"visible\">\n",
        kWidth, chart_.height, chart_.height);
    for (const auto& line : lines_) {
      std::string path;
      bool pen_down = false;
      for (std::size_t i = 0; i < line.x.size(); ++i) {
        const bool drawn = std::isfinite(line.y[i]);
        if (drawn)
          path += format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", kWidth * across(line.x[i]),
                         std::clamp(down(line.y[i]), -2.0, chart_.height + 2.0));
        pen_down = drawn;
      }
      if (path.empty()) continue;
      svg += format("<path class=\"{}{}{}\" d=\"{}\"{}>{}</path>\n", colour_class(line.colour),
                    dashed(line) ? " dash" : "", line.name.empty() ? " raw" : "", path,
                    line.opacity < 1 ? format(" stroke-opacity=\"{:.2g}\"", line.opacity) : "",
                    line.name.empty() ? "" : format("<title>{}</title>", escape(line.name)));
    }
    return svg + "</svg>\n";
  }

  // Points of short lines, and the labels.
  std::string marks() const {
    std::string svg;
    for (const auto& line : lines_) {
      if (line.y.size() > kMarked || line.name.empty()) continue;
      for (std::size_t i = 0; i < line.y.size(); ++i)
        if (std::isfinite(line.y[i]))
          svg += format(
              "<circle class=\"{}\" cx=\"{:.2f}%\" cy=\"{:.1f}\" r=\"3.5\"{}><title>{}: "
              "{}</title></circle>\n",
              colour_class(line.colour), 100 * across(line.x[i]), down(line.y[i]),
              line.opacity < 1 ? format(" fill-opacity=\"{:.2g}\"", line.opacity) : "", escape(line.name),
              number(line.y[i]));
    }
    for (const auto& label : labels_)
      svg += format("<text class=\"label {}\" x=\"100%\" dx=\"9\" y=\"{:.1f}\" dy=\"0.34em\">{}</text>\n",
                    colour_class(label.line->colour), label.y, escape(label.line->name));
    return svg;
  }

  std::string description() const {
    std::string text = format("{} over {}:", chart_.y_title, chart_.x_title);
    for (const auto& line : lines_)
      if (!line.name.empty() && !line.y.empty())
        text += format(" {} from {} to {};", line.name, number(line.y.front()), number(line.y.back()));
    text.back() = '.';
    return text;
  }

  const Chart& chart_;
  std::vector<ChartLine> lines_;
  Axis x_, y_;
  std::vector<Label> labels_;
  double label_width_ = 0;
};

}  // namespace

std::string line_chart(const Chart& chart) {
  return Drawing(chart).html();
}

std::vector<double> round_ticks(double low, double high, int count) {
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough * 0.999) step = factor * power;
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9);
  const double last = std::ceil(high / step - 1e-9);
  for (double i = first; i <= last; ++i) ticks.push_back(i * step);
  return ticks;
}

std::pair<double, double> value_range(const std::vector<ChartLine>& lines) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const auto& line : lines)
    for (const double y : line.y) {
      if (!std::isfinite(y)) continue;
      low = std::min(low, y);
      high = std::max(high, y);
    }
  return low <= high ? std::pair(low, high) : std::pair(0.0, 1.0);
}

std::string legend(const std::vector<ChartLine>& lines) {
  std::string items;
  std::size_t named = 0;
  for (const auto& line : lines) {
    if (line.name.empty()) continue;
    ++named;
    items += format(
        "<li class=\"{}{}\"><i{}></i>{}</li>\n", colour_class(line.colour), dashed(line) ? " dash" : "",
        line.opacity < 1 ? format(" style=\"opacity:{:.2g}\"", line.opacity) : "", escape(line.name));
  }
  return named < 2 ? "" : format("<ul class=\"legend\">\n{}</ul>\n", items);
}

std::vector<double> smoothed(const std::vector<double>& values, std::size_t reach) {
  std::vector<double> result(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    // as far to the left as to the right, so that the ends do not lag
    const std::size_t near = std::min({reach, i, values.size() - 1 - i});
    double sum = 0;
    for (std::size_t j = i - near; j <= i + near; ++j) sum += values[j];
    result[i] = sum / static_cast<double>(2 * near + 1);
  }
  return result;
}

}  // namespace stoa::html
