#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "stoa/train/exhibit.h"

/// Pieces of self-contained HTML pages. Arguments called `html` are markup and stand as they are; all other
/// text is escaped. The markup is also well-formed XML (every element is closed).
namespace stoa::html {

/// Text in which &, <, >, " and ' are references, fit for content and for attributes.
std::string escape(std::string_view text);

/// A number for people: "41,034", "0.8731" (four digits), "3.1e-05"; "–" where it is not finite.
std::string number(double value);

/// A large number with a unit prefix: "17.58 G", "1.234 M", "950".
std::string si_number(double value);

/// Characters of UTF-8 text.
std::size_t length(std::string_view text);

/// A whole page: head with the shared style sheet (light, dark, print, phone), and `body_html`.
std::string page(const std::string& title, const std::string& body_html);

/// `<TAG class="...">html</TAG>`; no class attribute where `classes` is empty.
std::string element(const std::string& tag, const std::string& html, const std::string& classes = "");

/// Content that is shown when its summary is clicked, and in print.
std::string details(const std::string& summary, const std::string& html);

/// A drawing under its title, with a caption that says how to read it (may be empty). `wide` takes the whole
/// width of a grid.
std::string figure(const std::string& title, const std::string& html, const std::string& caption,
                   bool wide = false);

/// One row of a table: cells as markup. A row with one cell in a wider table is a heading for the rows below
/// it.
using Row = std::vector<std::string>;

/// A table that scrolls sideways where it is too wide. The first column names its row; cells of the others
/// are numbers, flush right, or texts where `text_columns` says so.
std::string table(const Row& headings_html, const std::vector<Row>& rows_html, bool text_columns = false);

/// The same of plain text; the first row is the headings.
std::string text_table(const std::vector<std::vector<std::string>>& rows, bool text_columns = false);

/// Coloured cells with their values; without the values, and then without the names, where there are too many
/// to be read.
inline constexpr std::size_t kLargestValued = 26, kLargestNamed = 64;
std::string heat_map(const HeatMapExhibit& map);

/// Pictures side by side, framed and marked by whether they are good.
std::string gallery(const GalleryExhibit& gallery);

/// A PNG as an <img> with its data inside the page.
std::string image(std::span<const std::uint8_t> png, const std::string& alternative);

/// The shared style sheet.
std::string_view style_sheet();

}  // namespace stoa::html
