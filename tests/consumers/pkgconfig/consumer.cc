// consumer BUNDLE INPUT OUTPUT: the autoencoder on raw floats, a sample of 6 at a time.
#include <cstdio>
#include <exception>
#include <fstream>
#include <tiedexport/tiedexport.hpp>

int main(int count, char** words) {
  if (count != 4) return 2;
  try {
    tiedexport::Session session(tiedexport::Bundle{words[1]});
    std::ifstream in(words[2], std::ios::binary);
    std::ofstream out(words[3], std::ios::binary);
    float x[6], y[6];
    while (in.read(reinterpret_cast<char*>(x), sizeof x)) {
      session.reconstruct(x, y);
      out.write(reinterpret_cast<const char*>(y), sizeof y);
    }
    return out.flush() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
