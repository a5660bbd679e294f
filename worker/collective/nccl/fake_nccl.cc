// A library that says it is NCCL of whatever version it is told to be, and has nothing else of it.
#include <cstdlib>

extern "C" int ncclGetVersion(int* version) {
  const char* told = std::getenv("FAKE_NCCL_VERSION");
  if (told == nullptr) return 1;
  *version = std::atoi(told);
  return 0;
}
