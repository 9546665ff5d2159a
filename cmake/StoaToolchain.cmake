# Compiler checks, warnings, sanitizers, linker and compiler cache.

foreach(known "GNU g++ 12" "Clang clang++ 14")
  string(REPLACE " " ";" known "${known}")
  list(GET known 0 id)
  list(GET known 1 name)
  list(GET known 2 oldest)
  if(CMAKE_CXX_COMPILER_ID STREQUAL id AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS oldest)
    message(FATAL_ERROR "Stoa needs g++ 12 or newer, or clang 14 or newer; found ${name} ${CMAKE_CXX_COMPILER_VERSION}. "
                        "Install a newer one and set CXX, e.g. CXX=g++-12.")
  endif()
endforeach()

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")

add_library(stoa_flags INTERFACE)
# errno of math functions is never read; without this g++ does not vectorise sqrt
target_compile_options(stoa_flags INTERFACE -fno-math-errno)
target_compile_options(stoa_flags INTERFACE -Wall -Wextra -Wpedantic -Werror -Wno-unknown-pragmas)
if(STOA_SANITIZE)
  target_compile_options(stoa_flags INTERFACE -fsanitize=${STOA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(stoa_flags INTERFACE -fsanitize=${STOA_SANITIZE})
  # g++ reports false positives of these inside the standard library when sanitizers are on
  target_compile_options(stoa_flags INTERFACE -Wno-maybe-uninitialized -Wno-stringop-overflow -Wno-array-bounds)
  # fences of LibTorch's headers, which the thread sanitizer does not see
  target_compile_options(stoa_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-tsan>)
endif()

find_program(STOA_LLD ld.lld)
if(STOA_LLD)
  add_link_options(-fuse-ld=lld)
endif()

find_program(STOA_CCACHE ccache)
if(STOA_CCACHE)
  # a precompiled header can be cached only when its time stamps are not compared
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${STOA_CCACHE})
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>)
endif()
