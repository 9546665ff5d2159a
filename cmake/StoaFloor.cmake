# Floors and tests. A floor is a folder of src/stoa; it may use the floors listed before it.

set(STOA_FLOORS base tensor ops nn optim dist data metrics train tasks systems cli)

# stoa_floor(NAME): an object library of all the .cpp files below src/stoa/NAME; with STOA_CUDA one more
# of its .cu files, which see no LibTorch and none of the C++ flags.
# `base` sees no LibTorch; all others share one precompiled header.
function(stoa_floor name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/cli/main\\.cpp$|_module\\.cpp$")
  if(NOT sources)
    return()
  endif()
  add_library(stoa_${name} OBJECT ${sources})
  target_include_directories(stoa_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(stoa_${name} PRIVATE stoa_flags nlohmann_json::nlohmann_json tomlplusplus::tomlplusplus
                        ZLIB::ZLIB Threads::Threads)
  if(NOT name STREQUAL base)
    target_link_libraries(stoa_${name} PRIVATE stoa_torch JPEG::JPEG PNG::PNG stoa_zstd)
    if(name STREQUAL ops)
      target_link_libraries(stoa_${name} PRIVATE hwy::hwy)
    elseif(name STREQUAL data)
      target_link_libraries(stoa_${name} PRIVATE stoa_utf8proc)
      add_dependencies(stoa_${name} stoa_sentencepiece)
    elseif(name STREQUAL cli)
      target_link_libraries(stoa_${name} PRIVATE CLI11::CLI11)
      target_compile_definitions(stoa_${name} PRIVATE STOA_VERSION="${PROJECT_VERSION}")
    endif()
    target_precompile_headers(stoa_${name} REUSE_FROM stoa_pch)
  endif()
  file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cu)
  if(STOA_CUDA AND kernels)
    add_library(stoa_${name}_cuda OBJECT ${kernels})
    target_include_directories(stoa_${name}_cuda PRIVATE ${CMAKE_SOURCE_DIR}/src)
    set_target_properties(stoa_${name}_cuda PROPERTIES CUDA_STANDARD 17)  # CMake 3.25 knows no later one for nvcc
  endif()
endfunction()

# stoa_floor_objects(OUT NAME): the object files of floor NAME and of all floors above it.
function(stoa_floor_objects out name)
  set(objects)
  foreach(floor IN LISTS STOA_FLOORS)
    if(TARGET stoa_${floor})
      list(APPEND objects $<TARGET_OBJECTS:stoa_${floor}>)
    endif()
    if(TARGET stoa_${floor}_cuda)
      list(APPEND objects $<TARGET_OBJECTS:stoa_${floor}_cuda>)
    endif()
    if(floor STREQUAL name)
      break()
    endif()
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

# stoa_shares_pch(TARGET): an executable that uses the floors' precompiled header, which is compiled with -fPIC.
function(stoa_shares_pch target)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE -fPIC)
  target_precompile_headers(${target} REUSE_FROM stoa_pch)
endfunction()

# stoa_test(FLOOR FILE): one executable and one ctest entry from a test file. The file's name gives the label:
# X_gradient_test.cpp, X_golden_test.cpp, X_cli_test.cpp, X_dist_test.cpp, X_slow_test.cpp, X_cuda_test.cpp, else `unit`.
function(stoa_test floor file)
  get_filename_component(stem ${file} NAME_WE)
  get_filename_component(folder ${file} DIRECTORY)
  file(RELATIVE_PATH folder ${CMAKE_SOURCE_DIR}/tests ${folder})
  string(REPLACE "/" "." test "${folder}.${stem}")
  string(REGEX REPLACE "_test$" "" test "${test}")
  set(label unit)
  if(stem MATCHES "_(gradient|golden|cli|dist|slow|cuda)_test$")
    set(label ${CMAKE_MATCH_1})
  endif()
  string(REPLACE "." "_" target "test_${test}")
  stoa_floor_objects(objects ${floor})
  add_executable(${target} ${file} $<TARGET_OBJECTS:stoa_test_main> ${objects})
  stoa_shares_pch(${target})
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/tests)
  target_link_libraries(${target} PRIVATE stoa_flags stoa_torch GTest::gtest nlohmann_json::nlohmann_json
                        tomlplusplus::tomlplusplus ZLIB::ZLIB stoa_zstd JPEG::JPEG PNG::PNG hwy::hwy stoa_utf8proc Threads::Threads)
  target_compile_definitions(${target} PRIVATE STOA_SOURCE_DIR="${CMAKE_SOURCE_DIR}" STOA_PROGRAM="$<TARGET_FILE_DIR:stoa_program>/stoa")
  add_test(NAME ${test} COMMAND ${target})
  # ctest runs tests side by side: one thread each, or they wait for one another in every loop
  set_tests_properties(${test} PROPERTIES LABELS ${label} ENVIRONMENT "OMP_NUM_THREADS=1" SKIP_REGULAR_EXPRESSION "every test of this file was skipped" TIMEOUT 600)
  if(label STREQUAL dist)
    set_tests_properties(${test} PROPERTIES PROCESSORS 4)  # it runs as many processes, now and then one more
  endif()
  if(label STREQUAL cli OR label STREQUAL slow OR (label STREQUAL dist AND NOT floor STREQUAL dist))
    add_dependencies(${target} stoa_program)
  endif()
endfunction()
