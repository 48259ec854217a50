# The CUDA toolkit, or the wheels that hold its parts (scripts/setup_cuda.sh): nvcc, the runtime and
# cuBLASLt. CMake's own support wants a GPU or a whole toolkit; a compiler and two libraries do.
set(KVASIR_CUDA_ARCHITECTURES "80;89;90a" CACHE STRING "Compute capabilities to build for")
find_program(KVASIR_NVCC nvcc REQUIRED
             HINTS ${KVASIR_CUDA_ROOT}/bin $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
get_filename_component(cuda_root ${KVASIR_NVCC} REALPATH)
get_filename_component(cuda_root ${cuda_root} DIRECTORY)
get_filename_component(cuda_root ${cuda_root} DIRECTORY)
find_library(KVASIR_CUDART cudart_static REQUIRED HINTS ${cuda_root}/lib64 ${cuda_root}/lib)
find_library(KVASIR_CUBLASLT NAMES cublasLt libcublasLt.so.13 REQUIRED
             HINTS ${cuda_root}/lib64 ${cuda_root}/lib)
find_package(Threads REQUIRED)

add_library(kvasir_cuda_headers INTERFACE)
target_include_directories(kvasir_cuda_headers SYSTEM INTERFACE ${cuda_root}/include)
target_compile_definitions(kvasir_cuda_headers INTERFACE KVASIR_CUDA)
add_library(kvasir_cuda_runtime INTERFACE)
target_link_libraries(kvasir_cuda_runtime INTERFACE ${KVASIR_CUDART} ${KVASIR_CUBLASLT}
                                                    Threads::Threads ${CMAKE_DL_LIBS} rt)

# As on the CPU: the compiler would contract where it likes, differently in each copy of a loop.
set(cuda_flags -std=c++20 -O3 -fmad=false -Xcompiler -fPIC,-Wall -I${CMAKE_SOURCE_DIR}/src)
foreach(arch ${KVASIR_CUDA_ARCHITECTURES})
  list(APPEND cuda_flags -gencode arch=compute_${arch},code=sm_${arch})
endforeach()

# Compiles the *.cu of the target's folder into it.
function(kvasir_add_cuda target)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cu)
  if(NOT sources AND NOT IS_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/cuda)
    return()
  endif()
  foreach(source ${sources})
    file(RELATIVE_PATH name ${CMAKE_CURRENT_SOURCE_DIR} ${source})
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
    get_filename_component(folder ${object} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${KVASIR_NVCC} ${cuda_flags} -MD -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source}
      DEPFILE ${object}.d
      COMMENT "Building CUDA object ${name}.o"
      VERBATIM)
    target_sources(${target} PRIVATE ${object})
  endforeach()
  # Nothing that links the target sees a header of CUDA.
  target_link_libraries(${target} PRIVATE kvasir_cuda_headers INTERFACE kvasir_cuda_runtime)
endfunction()
