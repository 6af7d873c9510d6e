// consumer BUNDLE INPUT OUTPUT: the autoencoder on raw floats, without exceptions.
#include <cstdio>
#include <string>
#include <tiedexport/tiedexport.hpp>
#include <vector>

namespace {

int fail(const tiedexport::Failure& failure) {
  std::fprintf(stderr, "%d: %s\n", failure.status, failure.message.c_str());
  return 1;
}

std::vector<float> read(const char* path) {
  std::vector<float> values;
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) return values;
  float value = 0;
  while (std::fread(&value, sizeof value, 1, file) == 1) values.push_back(value);
  std::fclose(file);
  return values;
}

bool write(const char* path, const std::vector<float>& values) {
  std::FILE* file = std::fopen(path, "wb");
  if (file == nullptr) return false;
  const bool all = std::fwrite(values.data(), sizeof(float), values.size(), file) == values.size();
  return std::fclose(file) == 0 && all;
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  const auto missing = tiedexport::Bundle::try_open("nowhere.tied");
  if (missing || missing.failure().status != TIEDEXPORT_NOT_FOUND) return 3;
  const auto bundle = tiedexport::Bundle::try_open(words[1], tiedexport::Check::size);
  if (!bundle) return fail(bundle.failure());
  auto session = tiedexport::Session::try_create(*bundle);
  if (!session) return fail(session.failure());
  const auto wrong = session->try_run("nonsense", std::vector<float>(6));
  if (wrong || wrong.failure().status != TIEDEXPORT_INVALID_ARGUMENT) return 4;
  const auto output = session->try_reconstruct(read(words[2]));
  if (!output) return fail(output.failure());
  return write(words[3], *output) ? 0 : 5;
}
