#include "stoa/data/text/squad.h"

#include <set>

#include "stoa/base/errors.h"
#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/json.h"
#include "stoa/data/text/labelled_text.h"
#include "stoa/data/text/sentences.h"
#include "stoa/data/text/tsv.h"

namespace stoa {
namespace {

constexpr int kDeepest = 20;
constexpr std::int64_t kNear = 2;  // code points that an answer may be off its place

/// The member of an object. `where` names the object.
const Json& member(const Json& object, const char* name, const std::string& where) {
  if (!object.is_object())
    throw DataError(format("{}: {} where a JSON object is needed", where, object.type_name()));
  const auto found = object.find(name);
  if (found == object.end()) throw DataError(format("{}: `{}` is missing", where, name));
  return *found;
}

const std::string& text_of(const Json& object, const char* name, const std::string& where) {
  const Json& value = member(object, name, where);
  if (!value.is_string())
    throw DataError(format("{}: `{}` is {}; text is needed", where, name, value.type_name()));
  return value.get_ref<const std::string&>();
}

const Json& list_of(const Json& object, const char* name, const std::string& where) {
  const Json& value = member(object, name, where);
  if (!value.is_array())
    throw DataError(format("{}: `{}` is {}; a list is needed", where, name, value.type_name()));
  return value;
}

class Reader {
 public:
  explicit Reader(std::string where) : where_(std::move(where)) {}

  SquadData read(const Json& document) {
    const Json& articles = list_of(document, "data", where_);
    for (std::size_t a = 0; a < articles.size(); ++a) {
      const Json& paragraphs = list_of(articles[a], "paragraphs", format("{}, article {}", where_, a + 1));
      for (std::size_t p = 0; p < paragraphs.size(); ++p)
        add_paragraph(paragraphs[p], format("{}, article {}, paragraph {}", where_, a + 1, p + 1));
    }
    if (data_.questions.empty()) throw DataError(format("{}: there are no questions", where_));
    return std::move(data_);
  }

 private:
  void add_paragraph(const Json& paragraph, const std::string& where) {
    const auto number = std::ssize(data_.contexts);
    data_.contexts.push_back(text_of(paragraph, "context", where));
    starts_ = code_point_offsets(data_.contexts.back());
    for (const Json& question : list_of(paragraph, "qas", where)) {
      SquadQuestion result;
      result.id = text_of(question, "id", where);
      const std::string place = format("{}, question `{}`", where_, result.id);
      if (!ids_.insert(result.id).second) throw DataError(format("{}: its id is used twice", place));
      result.text = text_of(question, "question", place);
      if (without_outer_space(result.text).empty())
        throw DataError(format("{}: the question is empty", place));
      result.context = number;
      if (const auto found = question.find("is_impossible"); found != question.end()) {
        if (!found->is_boolean())
          throw DataError(
              format("{}: `is_impossible` is {}; true or false is needed", place, found->type_name()));
        result.impossible = found->get<bool>();
      }
      if (!result.impossible && question.contains("answers"))
        for (const Json& answer : list_of(question, "answers", place))
          result.answers.push_back(read_answer(answer, place));
      data_.questions.push_back(std::move(result));
    }
  }

  SquadAnswer read_answer(const Json& answer, const std::string& where) {
    SquadAnswer result{text_of(answer, "text", where)};
    const Json& start = member(answer, "answer_start", where);
    const auto characters = std::ssize(starts_) - 1;
    if (!start.is_number_integer() ||
        (start.is_number_unsigned() && start.get<std::uint64_t>() > static_cast<std::uint64_t>(characters)))
      throw DataError(
          format("{}: `answer_start` is {}; a whole number of the context's {} characters is needed", where,
                 start.dump(), characters));
    const auto first = start.get<std::int64_t>();
    if (first < 0 || first >= characters)
      throw DataError(
          format("{}: the answer begins at character {} of a context of {}", where, first, characters));
    if (without_outer_space(result.text).empty()) throw DataError(format("{}: an answer is empty", where));
    const std::string_view context = data_.contexts.back();
    for (const std::int64_t off : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{1}, -kNear, kNear}) {
      if (first + off < 0 || first + off >= characters) continue;
      const auto begin = starts_[static_cast<std::size_t>(first + off)];
      if (!context.substr(begin).starts_with(result.text)) continue;
      data_.moved += off != 0 ? 1 : 0;
      result.begin = static_cast<std::int64_t>(begin);
      result.end = result.begin + std::ssize(result.text);
      return result;
    }
    ++data_.lost;
    result.begin = result.end = -1;
    return result;
  }

  std::string where_;
  SquadData data_;
  std::set<std::string> ids_;
  std::vector<std::size_t> starts_;  // of the latest context's code points
};

Json parse_document(std::string_view json, const std::string& where) {
  const auto check = [&](int depth, Json::parse_event_t, const Json&) {
    if (depth > kDeepest)
      throw DataError(format("{}: values are nested deeper than {} levels", where, kDeepest));
    return true;
  };
  try {
    return Json::parse(json, check);
  } catch (const Json::parse_error& error) {
    throw DataError(
        format("{}: not valid JSON at byte {}; the file is damaged or was cut short", where, error.byte));
  } catch (const Json::out_of_range&) {
    throw DataError(format("{}: a number is too large for 64 bits", where));
  }
}

void add_question(SquadData& data, std::string id, std::string text, std::string context,
                  const std::string& where) {
  if (without_outer_space(text).empty()) throw DataError(format("{}: the question is empty", where));
  if (without_outer_space(context).empty()) throw DataError(format("{}: the context is empty", where));
  data.questions.push_back({std::move(id), std::move(text), std::ssize(data.contexts), {}, false});
  data.contexts.push_back(std::move(context));
}

}  // namespace

std::vector<std::size_t> code_point_offsets(std::string_view text) {
  std::vector<std::size_t> offsets;
  offsets.reserve(text.size() + 1);
  for (std::size_t at = 0; at < text.size(); ++at)
    if ((static_cast<std::uint8_t>(text[at]) & 0xC0) != 0x80) offsets.push_back(at);
  offsets.push_back(text.size());
  return offsets;
}

SquadData parse_squad(std::string_view json, const std::string& where) {
  return Reader(where).read(parse_document(json, where));
}

SquadData read_squad(const std::filesystem::path& file) {
  const auto bytes = read_maybe_gzip(file);
  return parse_squad({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, file.string());
}

SquadData parse_questions(std::string_view text, const std::string& where) {
  const auto start = without_outer_space(text);
  const auto first_line = start.substr(0, start.find('\n'));
  const bool lines_of_json = start.starts_with('{') &&
                             first_line.find("\"question\"") != std::string_view::npos &&
                             first_line.find("\"paragraphs\"") == std::string_view::npos;
  if (start.starts_with('{') && !lines_of_json) return parse_squad(text, where);
  SquadData data;
  TsvReader reader(text, where);
  std::string_view line;
  while (reader.line(line)) {
    const std::string place = reader.place();
    std::string id = format("{}", data.questions.size());
    if (line.starts_with('{')) {
      const Json object = parse_json_line(line, place);
      if (object.contains("id")) id = text_of(object, "id", place);
      add_question(data, std::move(id), text_of(object, "question", place), text_of(object, "context", place),
                   place);
      continue;
    }
    const auto fields = cut_at_tabs(line);
    if (fields.size() != 2)
      throw DataError(
          format("{}: {} fields between tabs; a question and its context, or a JSON object, are "
                 "needed",
                 place, fields.size()));
    add_question(data, std::move(id), std::string(fields[0]), std::string(fields[1]), place);
  }
  if (data.questions.empty()) throw DataError(format("{}: there are no questions", where));
  return data;
}

}  // namespace stoa
