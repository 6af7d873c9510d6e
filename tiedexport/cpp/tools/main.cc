// tiedexport-run: what this build of the library has.
#include <cstdio>
#include <vector>

#include "tiedexport/tiedexport.h"

int main() {
  std::vector<char> text(tiedexport_info(nullptr, 0));
  tiedexport_info(text.data(), text.size());
  std::fputs(text.data(), stdout);
}
