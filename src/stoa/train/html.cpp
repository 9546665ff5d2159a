#include "stoa/train/html.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "stoa/base/base64.h"
#include "stoa/base/format.h"
#include "stoa/base/text.h"

namespace stoa::html {

std::string escape(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string number(double value) {
  if (!std::isfinite(value)) return "–";
  const double size = std::abs(value);
  if (size >= 1e15) return format("{:.3e}", value);
  if (size >= 1000 || value == std::floor(value)) return thousands(std::llround(value));
  if (size >= 1e-3) return format("{:.4g}", value);
  return format("{:.2e}", value);
}

std::string si_number(double value) {
  if (!std::isfinite(value)) return "–";
  constexpr std::array kPrefixes = {"", " k", " M", " G", " T", " P"};
  std::size_t prefix = 0;
  while (std::abs(value) >= 999.95 && prefix + 1 < kPrefixes.size()) {
    value /= 1000;
    ++prefix;
  }
  return format("{:.4g}{}", value, kPrefixes[prefix]);
}

std::size_t length(std::string_view text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string page(const std::string& title, const std::string& body_html) {
  // Four columns under a roof: the house's mark
  constexpr std::string_view kMark =
      R"(<svg class="mark" viewBox="0 0 32 28" aria-hidden="true"><path d="M1 9 16 1l15 8v2H1zM1 25h30v2H1z"/>)"
      R"(<path d="M4 12h3v12H4zM11 12h3v12h-3zM18 12h3v12h-3zM25 12h3v12h-3z"/></svg>)";
  return format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
      "<meta name=\"color-scheme\" content=\"light "
      "dark\"/>\n<title>{}</title>\n<style>\n{}</style>\n</head>\n"
      "<body>\n<div class=\"brand\">{}<span>Stoa</span></div>\n<main>\n{}</main>\n</body>\n</html>\n",
      escape(title), style_sheet(), kMark, body_html);
}

std::string element(const std::string& tag, const std::string& html, const std::string& classes) {
  const std::string attribute = classes.empty() ? "" : format(" class=\"{}\"", escape(classes));
  return format("<{}{}>{}</{}>\n", tag, attribute, html, tag);
}

std::string details(const std::string& summary, const std::string& html) {
  return format("<details><summary>{}</summary>\n{}</details>\n", escape(summary), html);
}

std::string figure(const std::string& title, const std::string& html, const std::string& caption, bool wide) {
  const std::string note = caption.empty() ? "" : format("<figcaption>{}</figcaption>\n", escape(caption));
  return format("<figure{}>\n<h4>{}</h4>\n{}{}</figure>\n", wide ? " class=\"wide\"" : "", escape(title),
                html, note);
}

std::string table(const Row& headings_html, const std::vector<Row>& rows_html, bool text_columns) {
  std::string head;
  for (const auto& cell : headings_html) head += format("<th scope=\"col\">{}</th>", cell);
  std::string body;
  for (const auto& row : rows_html) {
    if (row.size() == 1 && headings_html.size() > 1) {
      body += format("<tr class=\"group\"><th scope=\"rowgroup\" colspan=\"{}\">{}</th></tr>\n",
                     headings_html.size(), row[0]);
      continue;
    }
    body += format("<tr><th scope=\"row\">{}</th>", row.empty() ? "" : row[0]);
    for (std::size_t i = 1; i < row.size(); ++i) body += format("<td>{}</td>", row[i]);
    body += "</tr>\n";
  }
  return format(
      "<div class=\"scroll\"><table "
      "class=\"{}\">\n<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table></div>\n",
      text_columns ? "texts" : "figures", head, body);
}

std::string text_table(const std::vector<std::vector<std::string>>& rows, bool text_columns) {
  std::vector<Row> escaped;
  for (const auto& row : rows)
    for (Row& cells = escaped.emplace_back(); const std::string& cell : row) cells.push_back(escape(cell));
  const Row headings = escaped.at(0);
  escaped.erase(escaped.begin());
  return table(headings, escaped, text_columns);
}

namespace {

// The value of one cell: two digits where it is a percentage, few enough to be read otherwise.
std::string cell_text(double value, bool percent) {
  if (!std::isfinite(value)) return "–";
  if (percent) {
    const double hundred = 100 * value;
    return hundred == 0 ? "·" : hundred < 0.5 ? "&lt;1" : format("{:.0f}", hundred);
  }
  if (value == 0) return "·";
  if (value == std::floor(value) || std::abs(value) >= 1000) return thousands(std::llround(value));
  return std::abs(value) >= 10 ? format("{:.1f}", value) : format("{:.2f}", value);
}

std::string end_text(double value, bool percent) {
  return value == 0 ? "0" : cell_text(value, percent) + (percent ? " %" : "");
}

// Where colours begin and end: at zero where all values have one sign.
struct Scale {
  double low = 0, high = 0;
  double share(double value) const {
    return std::isfinite(value) && high > low ? 100 * (value - low) / (high - low) : 0;
  }
};

Scale scale_of(const std::vector<double>& values) {
  Scale scale;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    scale.low = std::min(scale.low, value);
    scale.high = std::max(scale.high, value);
  }
  return scale;
}

std::string heat_cells(const HeatMapExhibit& map, std::size_t row, const Scale& scale, bool values) {
  std::string cells;
  for (std::size_t column = 0; column < map.columns.size(); ++column) {
    const double value = map.values[row * map.columns.size() + column];
    const double share = scale.share(value);
    const std::string shown = cell_text(value, map.percent);
    // where the text has to change its colour to be read, in the light and in the dark
    const char* heat = share > 66 ? " class=\"hot\"" : share > 56 ? " class=\"warm\"" : "";
    cells += format("<td{} style=\"--v:{:.0f}%\"", heat, share);
    if (values)
      cells += format(">{}</td>", shown);
    else
      cells +=
          format(" title=\"{}, {}: {}\"></td>", escape(map.rows[row]), escape(map.columns[column]), shown);
  }
  return cells;
}

std::string heat_key(const Scale& scale, bool percent) {
  return format("<p class=\"key\"><span>{}</span><i></i><span>{}</span></p>\n", end_text(scale.low, percent),
                end_text(scale.high, percent));
}

}  // namespace

std::string heat_map(const HeatMapExhibit& map) {
  const std::size_t most = std::max(map.rows.size(), map.columns.size());
  const bool values = most <= kLargestValued, names = most <= kLargestNamed;
  std::string classes = "heat";
  if (names && std::ranges::any_of(map.columns, [](const auto& name) { return length(name) > 4; }))
    classes += " upright";
  if (!values) classes += " small";
  if (map.columns.size() < 8) classes += " roomy";
  const Scale scale = scale_of(map.values);
  std::string head, body;
  for (const auto& name : map.columns)
    head += format("<th scope=\"col\"><span>{}</span></th>", names ? escape(name) : "");
  for (std::size_t row = 0; row < map.rows.size(); ++row)
    body += format("<tr><th scope=\"row\">{}</th>{}</tr>\n", names ? escape(map.rows[row]) : "",
                   heat_cells(map, row, scale, values));
  return format(
      "<div class=\"scroll\"><table class=\"{}\" style=\"--cell:{:.2f}rem\">\n<thead><tr><td></td><th "
      "class=\"axis\" "
      "colspan=\"{}\">{}</th></tr>\n<tr><th class=\"axis corner\">{}</th>{}</tr></thead>\n"
      "<tbody>\n{}</tbody>\n</table></div>\n{}",
      classes, std::clamp(56.0 / static_cast<double>(most), 0.3, 1.5), map.columns.size(),
      escape(map.column_title), escape(map.row_title), head, body, heat_key(scale, map.percent));
}

std::string image(std::span<const std::uint8_t> png, const std::string& alternative) {
  return format("<img alt=\"{}\" src=\"data:image/png;base64,{}\"/>", escape(alternative), to_base64(png));
}

// "Ankle boot 71 %" must not break before its percent sign.
static std::string unbroken_percent(std::string text) {
  for (std::size_t at = 0; (at = text.find(" %", at)) != std::string::npos;) text.replace(at, 1, "\u00a0");
  return text;
}

std::string gallery(const GalleryExhibit& gallery) {
  std::string items;
  for (const auto& picture : gallery.pictures)
    items += format("<li class=\"{}\">{}<span><b>{}</b> {}</span></li>\n", picture.good ? "good" : "bad",
                    image(picture.png, picture.caption), picture.good ? "✓" : "✗",
                    unbroken_percent(escape(picture.caption)));
  return format("<ul class=\"gallery\">\n{}</ul>\n", items);
}

}  // namespace stoa::html
