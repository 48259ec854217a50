#pragma once

#include "model/architecture.h"

namespace kvasir::model {

extern const Architecture kLlama;
extern const Architecture kMistral;
extern const Architecture kQwen2;
extern const Architecture kQwen3;
extern const Architecture kGemma2;
extern const Architecture kGemma3;
extern const Architecture kPhi3;
extern const Architecture kMixtral;
extern const Architecture kQwen3Moe;
extern const Architecture kGptOss;
extern const Architecture kDeepseek3;

}  // namespace kvasir::model
