# Floors and tests. A floor is a folder of src/stoa; it may use the floors listed before it.

set(STOA_FLOORS base tensor ops nn optim dist data metrics train tasks systems cli)

# stoa_floor(NAME): the .cpp files below src/stoa/NAME, as one object library for each precompiled header that they use; with
# STOA_CUDA one more of its .cu files, which see no LibTorch and none of the C++ flags. `base` sees no LibTorch.
function(stoa_floor name)
  file(GLOB_RECURSE files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER files EXCLUDE REGEX "/cli/main\\.cpp$|_module\\.cpp$")
  foreach(file IN LISTS files)
    stoa_includes(kind ${file})
    list(APPEND files_${kind} ${file})
  endforeach()
  foreach(kind nothing tensors modules)
    if(files_${kind})
      add_library(stoa_${name}_${kind} OBJECT ${files_${kind}})
      stoa_link_floor(stoa_${name}_${kind} ${name})
      stoa_precompiled(stoa_${name}_${kind} ${kind})
    endif()
  endforeach()
  file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cu)
  if(STOA_CUDA AND kernels)
    add_library(stoa_${name}_cuda OBJECT ${kernels})
    target_include_directories(stoa_${name}_cuda PRIVATE ${CMAKE_SOURCE_DIR}/src)
    set_target_properties(stoa_${name}_cuda PROPERTIES CUDA_STANDARD 17)  # CMake 3.25 knows no later one for nvcc
  endif()
endfunction()

# stoa_link_floor(TARGET NAME): what files of floor NAME may include.
function(stoa_link_floor target name)
  target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(${target} PRIVATE stoa_flags nlohmann_json::nlohmann_json tomlplusplus::tomlplusplus ZLIB::ZLIB Threads::Threads)
  if(name STREQUAL base)
    target_include_directories(${target} SYSTEM PRIVATE ${FMT_INCLUDE})  # in format.cpp alone
    return()
  endif()
  target_link_libraries(${target} PRIVATE stoa_torch JPEG::JPEG PNG::PNG stoa_zstd)
  if(name STREQUAL ops)
    target_link_libraries(${target} PRIVATE hwy::hwy)
  elseif(name STREQUAL data)
    target_link_libraries(${target} PRIVATE stoa_utf8proc)
    add_dependencies(${target} stoa_sentencepiece)
  elseif(name STREQUAL cli)
    target_link_libraries(${target} PRIVATE CLI11::CLI11)
    target_compile_definitions(${target} PRIVATE STOA_VERSION="${PROJECT_VERSION}")
  endif()
endfunction()

# stoa_floor_objects(OUT NAME...): the object files of these floors.
function(stoa_floor_objects out)
  set(objects)
  foreach(name IN LISTS ARGN)
    foreach(kind nothing tensors modules cuda)
      if(TARGET stoa_${name}_${kind})
        list(APPEND objects $<TARGET_OBJECTS:stoa_${name}_${kind}>)
      endif()
    endforeach()
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

# stoa_floors_to(OUT NAME): floor NAME and all that it may use.
function(stoa_floors_to out name)
  list(FIND STOA_FLOORS ${name} last)
  math(EXPR count "${last} + 1")
  list(SUBLIST STOA_FLOORS 0 ${count} floors)
  set(${out} ${floors} PARENT_SCOPE)
endfunction()

# stoa_executable(TARGET FILE...): an executable of FILE and others, which may use the floors' precompiled headers: these are compiled
# with -fPIC.
function(stoa_executable target file)
  add_executable(${target} ${file} ${ARGN})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE -fPIC)
  stoa_includes(kind ${file})
  stoa_precompiled(${target} ${kind})
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
  stoa_floors_to(floors ${floor})
  stoa_floor_objects(objects ${floors})
  stoa_executable(${target} ${file} $<TARGET_OBJECTS:stoa_test_main> ${objects})
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)  # a fifth less to compile; what takes time is in the floors
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
