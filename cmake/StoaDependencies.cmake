# Libraries that Stoa stands on. scripts/setup.sh installs all of them on Debian and Ubuntu.

# LibTorch: CMAKE_PREFIX_PATH or Torch_DIR first, then the project's own .deps, then an importable Python torch.
if(NOT Torch_DIR)
  find_package(Torch CONFIG QUIET)
endif()
if(NOT Torch_FOUND AND NOT Torch_DIR AND EXISTS ${CMAKE_SOURCE_DIR}/.deps/python/torch/share/cmake/Torch/TorchConfig.cmake)
  set(Torch_DIR ${CMAKE_SOURCE_DIR}/.deps/python/torch/share/cmake/Torch)
endif()
if(NOT Torch_FOUND AND NOT Torch_DIR)
  find_package(Python3 COMPONENTS Interpreter QUIET)
  if(Python3_FOUND)
    execute_process(COMMAND ${Python3_EXECUTABLE} -c "import torch; print(torch.utils.cmake_prefix_path)"
                    OUTPUT_VARIABLE torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(torch_prefix)
      set(Torch_DIR ${torch_prefix}/Torch)
    endif()
  endif()
endif()
if(NOT Torch_FOUND)
  find_package(Torch CONFIG QUIET)
endif()
if(NOT Torch_FOUND)
  message(FATAL_ERROR "LibTorch was not found. Run scripts/setup.sh, or name one with -DCMAKE_PREFIX_PATH=/path/to/libtorch. "
                      "A CUDA build of LibTorch needs the CUDA toolkit to be configured: without one, install the CPU build "
                      "(pip install torch==2.13.0+cpu from PyTorch's own index, or the CPU archive of LibTorch).")
endif()
if(Torch_VERSION VERSION_LESS 2.11)
  message(FATAL_ERROR "Stoa needs LibTorch 2.11 or newer; found ${Torch_VERSION} in ${Torch_DIR}. Run scripts/setup.sh or name a newer one.")
endif()
if(STOA_CUDA AND NOT TARGET torch_cuda)
  message(FATAL_ERROR "STOA_CUDA needs a CUDA build of LibTorch; the one in ${Torch_DIR} is a CPU build. Name another with Torch_DIR, "
                      "or build without STOA_CUDA (scripts/check_cuda.sh compiles the kernels alone).")
endif()
get_filename_component(STOA_TORCH_LIB_DIR ${TORCH_LIBRARY} DIRECTORY)

find_package(OpenMP REQUIRED COMPONENTS CXX)  # without it at::parallel_for runs on one thread, silently
find_package(nlohmann_json REQUIRED)
find_package(tomlplusplus QUIET)
if(NOT tomlplusplus_FOUND)
  find_path(TOMLPLUSPLUS_INCLUDE toml++/toml.h REQUIRED)
  add_library(tomlplusplus::tomlplusplus INTERFACE IMPORTED)
  target_include_directories(tomlplusplus::tomlplusplus INTERFACE ${TOMLPLUSPLUS_INCLUDE})
endif()
find_package(CLI11 REQUIRED)
find_package(ZLIB REQUIRED)
include(StoaZstd)
find_package(JPEG REQUIRED)
find_package(PNG REQUIRED)
find_package(Threads REQUIRED)
find_package(hwy REQUIRED)  # SIMD chosen at run time, in ops/ only
find_path(FMT_INCLUDE fmt/format.h REQUIRED)
find_library(STOA_UTF8PROC utf8proc REQUIRED)  # Unicode tables, in data/text only
add_library(stoa_utf8proc INTERFACE)
target_link_libraries(stoa_utf8proc INTERFACE ${STOA_UTF8PROC})
find_library(STOA_SENTENCEPIECE sentencepiece REQUIRED)  # of a module of its own
if(STOA_TESTS)
  find_package(GTest REQUIRED)
endif()

# LibTorch as one target whose headers raise no warnings
add_library(stoa_torch INTERFACE)
target_include_directories(stoa_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(stoa_torch INTERFACE ${TORCH_LIBRARIES})
# by flag, not by path: the wheel brings a libgomp of its own, and only that one may be loaded
target_compile_options(stoa_torch INTERFACE ${OpenMP_CXX_FLAGS})
target_link_options(stoa_torch INTERFACE ${OpenMP_CXX_FLAGS})
if(STOA_CUDA)
  find_package(CUDAToolkit REQUIRED)
  target_link_libraries(stoa_torch INTERFACE CUDA::cudart)
  target_compile_definitions(stoa_torch INTERFACE STOA_CUDA)
endif()
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(stoa_torch INTERFACE ${torch_flags})
