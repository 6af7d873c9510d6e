// How many threads are worth having.
#pragma once

namespace tiedexport::internal::native {

/// The processors that this process may run on: the affinity mask where the system has one. At
/// least 1.
int processors_allowed();

}  // namespace tiedexport::internal::native
