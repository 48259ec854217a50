// The 16 values from which the integers of some 4-bit formats choose. Light on includes, because
// the kernels' own translation units are compiled for other instruction sets.
#pragma once

#include <cstdint>

namespace kvasir::ops {

// IQ4_NL of GGUF.
inline constexpr int8_t kIq4NlValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};
// Twice those of E2M1 (OCP Microscaling): bit 3 is the sign.
inline constexpr int8_t kMxfp4Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace kvasir::ops
