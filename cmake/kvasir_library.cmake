# kvasir_library(NAME DEPS <libraries...>)
#
# One static library a folder: every *.cc of the folder and of its sub-folders except tests, and
# one test program NAME_test from every *_test.cc. Headers are included from src/ ("kv/pool.h").
include(GoogleTest)

function(kvasir_library NAME)
  cmake_parse_arguments(ARG "" "" "DEPS;TEST_DEPS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  if(sources)
    add_library(kvasir_${NAME} STATIC ${sources})
    set(scope PUBLIC)
  else()
    add_library(kvasir_${NAME} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(kvasir_${NAME} ${scope} ${CMAKE_SOURCE_DIR}/src)
  list(TRANSFORM ARG_DEPS REPLACE "^([a-z_]+)$" "kvasir_\\1")
  target_link_libraries(kvasir_${NAME} ${scope} ${ARG_DEPS})

  if(tests)
    list(TRANSFORM ARG_TEST_DEPS REPLACE "^([a-z_]+)$" "kvasir_\\1")
    add_executable(${NAME}_test ${tests})
    target_link_libraries(${NAME}_test PRIVATE kvasir_${NAME} ${ARG_TEST_DEPS} GTest::gtest
                                               GTest::gmock GTest::gtest_main)
    target_compile_options(${NAME}_test PRIVATE ${KVASIR_TEST_OPTIONS})
    target_compile_definitions(${NAME}_test
                               PRIVATE KVASIR_TEST_DATA="${CMAKE_SOURCE_DIR}/tests/data")
    add_test(NAME ${NAME}_test COMMAND ${NAME}_test)
    set_tests_properties(${NAME}_test PROPERTIES LABELS unit)
  endif()
endfunction()
