// Where models and what is made from them are kept between runs.
#pragma once

#include <filesystem>

namespace kvasir::cli {

// $KVASIR_CACHE, else $XDG_CACHE_HOME/kvasir, else ~/.cache/kvasir. Not created here.
std::filesystem::path CacheDir();

// The model that `kvasir serve` takes when it is given none; scripts/fetch_default_model.sh puts it
// there.
std::filesystem::path DefaultModelPath();

}  // namespace kvasir::cli
