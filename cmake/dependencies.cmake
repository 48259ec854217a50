# Every outside library, found once. docs/architecture.md says why each was chosen.
find_package(Threads REQUIRED)
find_package(absl REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(Boost 1.81 REQUIRED)

find_package(prometheus-cpp REQUIRED COMPONENTS core)
find_package(GTest REQUIRED)
if(NOT KVASIR_SANITIZE)
  find_package(benchmark REQUIRED)
endif()

# The request plane. Debian's CMake files of gRPC ask for more than it takes.
find_package(PkgConfig REQUIRED)
pkg_check_modules(GRPC REQUIRED IMPORTED_TARGET grpc++ protobuf)
find_program(PROTOC protoc REQUIRED)
find_program(GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)

# KV events. cppzmq is headers over it.
pkg_check_modules(ZeroMQ REQUIRED IMPORTED_TARGET libzmq)
