# Language, warnings, sanitizers, linker and compiler cache: what holds for every target.
set(KVASIR_SANITIZE "" CACHE STRING "Sanitizers for the whole build, as -fsanitize= takes them")
option(KVASIR_CUDA "Build for NVIDIA GPUs too" OFF)
option(KVASIR_FUZZ "Build the libFuzzer targets too (clang only)" OFF)

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")
# Tests spend their time in the libraries, and optimising gtest's expansions takes most of a build's.
set(KVASIR_TEST_OPTIONS $<IF:$<CONFIG:Release>,-O1,-O0>)

# Contraction would let the compiler fuse a multiply and an add where it likes, and differently in
# each kernel family; every fused multiply-add in this code base is written as one.
add_compile_options(-Wall -Wextra -Wno-missing-field-initializers -ffp-contract=off)

if(CMAKE_CXX_COMPILER_ID STREQUAL Clang)
  # The system's libraries bear the names that g++ gives; and its std::stable_sort calls what is
  # deprecated.
  add_compile_options(-fclang-abi-compat=17 -Wno-deprecated-declarations
                      -Wno-unknown-warning-option)
endif()

if(KVASIR_SANITIZE)
  add_compile_options(-fsanitize=${KVASIR_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${KVASIR_SANITIZE})
  if(KVASIR_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()
if(KVASIR_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
find_program(MOLD mold)
if(MOLD)
  add_link_options(-fuse-ld=mold)
endif()
