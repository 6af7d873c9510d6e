// Whether this process may multiply bfloat16 with AMX, Intel's tiles of registers.
#pragma once

namespace tiedexport::internal::native {

/// Why not, in words; null where it may. The first call asks the CPU, then Linux for its
/// permission, which the whole process has from then on, and tries a small product; later calls
/// give the same answer. Throws Error (OUT_OF_MEMORY).
const char* why_no_amx();

}  // namespace tiedexport::internal::native
