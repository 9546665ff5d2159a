# Zstandard: its own CMake package is not in every distribution's, so header and library are looked for.
find_path(ZSTD_INCLUDE zstd.h REQUIRED)
find_library(ZSTD_LIBRARY zstd REQUIRED)
if(NOT TARGET stoa_zstd)
  add_library(stoa_zstd INTERFACE IMPORTED)
  target_include_directories(stoa_zstd INTERFACE ${ZSTD_INCLUDE})
  target_link_libraries(stoa_zstd INTERFACE ${ZSTD_LIBRARY})
endif()
