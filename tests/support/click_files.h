#pragma once

#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "stoa/base/files.h"
#include "stoa/base/format.h"
#include "stoa/base/random.h"
#include "stoa/data/tabular/prepare.h"
#include "support/temp_dir.h"

// Made click logs in the forms of the public ones.
namespace stoa::test {

inline void write_text(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

/// All files below a prepared folder with their contents, lock aside.
inline std::map<std::string, std::string> folder_contents(const std::filesystem::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().filename() != ".lock")
      files[std::filesystem::relative(entry.path(), folder).string()] = read_file(entry.path());
  return files;
}

inline void write_gzip(const std::filesystem::path& file, const std::string& text) {
  gzFile out = gzopen(file.c_str(), "wb");
  gzwrite(out, text.data(), static_cast<unsigned>(text.size()));
  gzclose(out);
}

/// A Criteo row: label, 13 numbers, 26 ids.
inline std::string criteo_line(const std::string& label, const std::vector<std::string>& numbers,
                               const std::vector<std::string>& ids) {
  std::string line = label;
  for (std::size_t i = 0; i < 13; ++i) line += "\t" + (i < numbers.size() ? numbers[i] : "");
  for (std::size_t i = 0; i < 26; ++i) line += "\t" + (i < ids.size() ? ids[i] : "");
  return line + "\n";
}

/// `rows` rows in Criteo's form, a long tail of ids, some cells empty.
inline std::string criteo_text(std::int64_t rows, std::uint64_t seed = 0) {
  std::string text;
  for (std::int64_t i = 0; i < rows; ++i) {
    RandomStream random(mix_seed({seed, static_cast<std::uint64_t>(i)}));
    std::vector<std::string> numbers, ids;
    for (int c = 0; c < 13; ++c)
      numbers.push_back(random.uniform() < 0.2 ? "" : format("{}", random.integer(-2, 500)));
    for (int c = 0; c < 26; ++c) {
      const double draw = random.uniform();
      ids.push_back(
          draw < 0.1 ? ""
                     : format("{:08x}", 0x9e3779b9u * static_cast<unsigned>(draw * draw * draw * 300 + c)));
    }
    text += criteo_line(random.uniform() < 0.25 ? "1" : "0", numbers, ids);
  }
  return text;
}

inline const char* kAvazuHeader =
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
    "device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n";
/// Two rows of Avazu's form: a Tuesday at 0 h (21 October 2014) and a Saturday at 13 h.
inline std::string avazu_text() {
  return std::string(kAvazuHeader) +
         "1000009418151094273,0,14102100,1005,0,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,"
         "a99f214a,"
         "ddd2926e,44956a24,1,2,15706,320,50,1722,0,35,-1,79\n"
         "10000169349117863715,1,14102513,1002,1,1fbe01fe,f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,"
         "a99f214a,"
         "96809ac8,711ee120,1,0,999,320,50,1722,0,35,100084,79\n";
}

/// Options that prepare `inputs` of a source into `out`, in many small parts.
inline PrepareOptions prepare_options(const std::string& source,
                                      const std::vector<std::filesystem::path>& inputs,
                                      const std::filesystem::path& out) {
  PrepareOptions options;
  options.source = source;
  options.inputs = inputs;
  options.out = out;
  options.chunk_bytes = 1 << 14;
  return options;
}

}  // namespace stoa::test
