#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "stoa/base/files.h"
#include "stoa/base/json.h"

// What folders of prepared data have in common, whatever is in them: a closing JSON file, written last, that
// names the others with their checksums, and a work folder of the preparation that goes on after a kill.
namespace stoa {

/// File names within the folder. kCommandFile is in the work folder.
inline constexpr const char* kLockFile = ".lock";
inline constexpr const char* kWorkFolder = ".prepare";
inline constexpr const char* kCommandFile = "command.json";

/// A kind of prepared folder.
struct PreparedKind {
  const char* closing_file;
  const char* format;   ///< the closing file's "format"
  const char* noun;     ///< what it holds, in messages: "data", "text"
  const char* program;  ///< what makes it, in messages
};

/// Name, size and CRC-32 of a file in the folder: {"file", "bytes", "crc32"}.
Json file_entry(const std::filesystem::path& folder, const std::string& name);

/// The file of an entry, mapped, its size compared, and its checksum too where it has at most `most_summed`
/// bytes. Throws DataError, naming the file, where it is absent or altered.
std::unique_ptr<MappedFile> checked_file(
    const PreparedKind& kind, const std::filesystem::path& folder, const Json& entry,
    std::uint64_t most_summed = std::numeric_limits<std::uint64_t>::max());

/// Hands the closing file to `take`, whose JSON exceptions become DataError as well. Throws DataError, naming
/// the file, where the folder is unfinished, of another format or altered.
void read_closing_file(const PreparedKind& kind, const std::filesystem::path& folder,
                       const std::function<void(const Json&)>& take);

/// Writes the closing file: the kind's "format", `content`, and "crc32" of both.
void write_closing_file(const PreparedKind& kind, const std::filesystem::path& folder, const Json& content);

/// JSON as text; bytes that are not UTF-8 (names of columns and files may have such) are replaced.
std::string json_text(const Json& json, int indent = -1);

/// JSON as it comes back from a file, where names that are not UTF-8 are changed: to be compared with such.
Json as_read_back(const Json& json);

/// Place, size and time of change of each raw file, as read back: equal for files that were not changed.
/// Throws IoError for what cannot be read twice.
Json input_entries(const std::vector<std::filesystem::path>& files);

/// Removes half-written files of a process that was killed.
void remove_temporaries(const std::filesystem::path& folder);

/// What a preparation wants of its folder, and how the kind answers.
struct FolderClaim {
  PreparedKind kind;
  std::filesystem::path out;  ///< exists, and is locked
  Json command;               ///< inputs and options, as read back
  bool overwrite = false;     ///< remove what is prepared there, unless it is this command's, half done
  std::function<Json()> finished_command;  ///< that of a finished folder, which it checks
  /// Removes what the kind wrote outside the work folder, and the work folder's kCommandFile. The closing
  /// file and kCommandFile go first, so that a kill leaves a folder that is neither finished nor to be gone
  /// on with.
  std::function<void()> remove_prepared;
};

/// True where the folder already holds what is wanted. Otherwise it is ready to be written or written on.
/// Throws ConfigError where it holds something else.
bool claim_folder(const FolderClaim& claim);

}  // namespace stoa
