#include "fusefs/daemon/layer_learner.h"

#include <utility>

namespace headrace::daemon {

Result<LearnedLayer> LearnWhole(const stream::LearnRequest& request, registry::RangeSource& source, cache::ContentStore& cache) {
  HR_ASSIGN_OR_RETURN(stream::LearnedTable learned, stream::LearnLayer(request, source, cache));
  return LearnedLayer{std::move(learned.table), learned.decoded};
}

}  // namespace headrace::daemon
