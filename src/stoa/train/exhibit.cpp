#include "stoa/train/exhibit.h"

#include <limits>

#include "stoa/base/base64.h"
#include "stoa/base/errors.h"
#include "stoa/base/format.h"

namespace stoa {

namespace {

// JSON has no NaN and no infinity: they are written, and read back, as null.
std::vector<double> numbers(const Json& list) {
  std::vector<double> values;
  for (const Json& item : list)
    values.push_back(item.is_null() ? std::numeric_limits<double>::quiet_NaN() : item.get<double>());
  return values;
}

void write(const TableExhibit& table, Json& json) {
  json["kind"] = "table";
  json["headings"] = table.headings;
  json["rows"] = table.rows;
}

void write(const HeatMapExhibit& map, Json& json) {
  json["kind"] = "heat_map";
  json["row_title"] = map.row_title;
  json["column_title"] = map.column_title;
  json["rows"] = map.rows;
  json["columns"] = map.columns;
  json["values"] = map.values;
  json["percent"] = map.percent;
}

void write(const LinesExhibit& lines, Json& json) {
  json["kind"] = "lines";
  json["x_title"] = lines.x_title;
  json["y_title"] = lines.y_title;
  json["lines"] = Json::array();
  for (const auto& line : lines.lines)
    json["lines"].push_back({{"name", line.name}, {"x", line.x}, {"y", line.y}});
}

void write(const GalleryExhibit& gallery, Json& json) {
  json["kind"] = "gallery";
  json["pictures"] = Json::array();
  for (const auto& picture : gallery.pictures)
    json["pictures"].push_back(
        {{"png", to_base64(picture.png)}, {"caption", picture.caption}, {"good", picture.good}});
}

TableExhibit read_table(const Json& json) {
  TableExhibit table{json.at("headings"), json.at("rows")};
  for (std::size_t i = 0; i < table.rows.size(); ++i)
    if (table.rows[i].size() != table.headings.size())
      throw DataError(
          format("row {} has {} cells under {} headings", i, table.rows[i].size(), table.headings.size()));
  return table;
}

HeatMapExhibit read_heat_map(const Json& json) {
  HeatMapExhibit map{json.at("row_title"), json.at("column_title"),    json.at("rows"),
                     json.at("columns"),   numbers(json.at("values")), json.value("percent", false)};
  if (map.values.size() != map.rows.size() * map.columns.size())
    throw DataError(
        format("{} values in {} rows x {} columns", map.values.size(), map.rows.size(), map.columns.size()));
  return map;
}

LinesExhibit read_lines(const Json& json) {
  LinesExhibit lines{json.at("x_title"), json.at("y_title"), {}};
  for (const Json& item : json.at("lines")) {
    LinesExhibit::Line line{item.at("name"), numbers(item.at("x")), numbers(item.at("y"))};
    if (line.x.size() != line.y.size())
      throw DataError(format("line `{}` has {} x and {} y", line.name, line.x.size(), line.y.size()));
    lines.lines.push_back(std::move(line));
  }
  return lines;
}

GalleryExhibit read_gallery(const Json& json) {
  GalleryExhibit gallery;
  for (const Json& item : json.at("pictures"))
    gallery.pictures.push_back(
        {from_base64(item.at("png").get<std::string>()), item.at("caption"), item.value("good", true)});
  return gallery;
}

}  // namespace

Json Exhibit::to_json() const {
  Json json = {{"title", title}, {"caption", caption}};
  std::visit([&](const auto& shown) { write(shown, json); }, content);
  return json;
}

Exhibit Exhibit::from_json(const Json& json) {
  std::string name = "?";
  try {
    name = json.at("title");
    Exhibit exhibit{name, json.at("caption"), {}};
    const std::string kind = json.at("kind");
    if (kind == "table")
      exhibit.content = read_table(json);
    else if (kind == "heat_map")
      exhibit.content = read_heat_map(json);
    else if (kind == "lines")
      exhibit.content = read_lines(json);
    else if (kind == "gallery")
      exhibit.content = read_gallery(json);
    else
      throw DataError(format("kind `{}`; known: table, heat_map, lines, gallery", kind));
    return exhibit;
  } catch (const Json::exception& error) {
    throw DataError(format("exhibit `{}` cannot be read: {}; evaluate the run again", name, error.what()));
  } catch (const DataError& error) {
    throw DataError(format("exhibit `{}` cannot be read: {}; evaluate the run again", name, error.what()));
  }
}

}  // namespace stoa
