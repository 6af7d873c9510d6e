// consumer BUNDLE INPUT OUTPUT: the autoencoder on raw floats, by way of its code.
#include <array>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <string>
#include <tiedexport/tiedexport.hpp>
#include <utility>
#include <vector>

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  ++failures;
}

template <class Call>
tiedexport_status status_of(const Call& call) {
  try {
    call();
    return TIEDEXPORT_OK;
  } catch (const tiedexport::Error& error) {
    return error.status();
  }
}

std::vector<float> read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const auto* begin = reinterpret_cast<const float*>(bytes.data());
  return {begin, begin + bytes.size() / sizeof(float)};
}

void check_errors(const tiedexport::Bundle& bundle, tiedexport::Session& session) {
  const std::vector<float> none;
  expect(session.encode(none).empty(), "no samples give no samples");
  const std::array<float, 5> part{};
  expect(status_of([&] { session.encode(part); }) == TIEDEXPORT_INVALID_ARGUMENT,
         "a part of a sample is refused");
  const float sample[6] = {};
  std::vector<float> code(3);
  expect(status_of([&] { session.encode(sample, code); }) == TIEDEXPORT_INVALID_ARGUMENT,
         "an output that does not fit is refused");
  const std::vector<std::uint16_t> halves(6);
  expect(status_of([&] { session.encode(halves); }) == TIEDEXPORT_INVALID_ARGUMENT,
         "an array of another type is refused");
  expect(status_of([&] { session.run("nonsense", sample); }) == TIEDEXPORT_INVALID_ARGUMENT,
         "an unknown stage is refused");
  expect(status_of([] { tiedexport::Bundle("nowhere.tied"); }) == TIEDEXPORT_NOT_FOUND,
         "a bundle that is not there is not found");
  expect(status_of([&] { bundle.stage("nonsense"); }) == TIEDEXPORT_INVALID_ARGUMENT,
         "a bundle lists its own stages only");
  tiedexport::Options options;
  options.backend = "nonsense";
  expect(status_of([&] { tiedexport::Session(bundle, options); }) == TIEDEXPORT_INVALID_ARGUMENT,
         "an unknown backend is refused");
}

/// A session that outlives its bundle.
tiedexport::Session opened(const char* path) {
  const tiedexport::Bundle bundle(path);
  expect(bundle.stages().size() == 3, "three stages");
  expect(bundle.stage("encoder").output.shape[0] == 2, "a code of two");
  expect(bundle.precisions() == std::vector<std::string>{"fp32", "fp16", "bf16"}, "precisions");
  tiedexport::Options options;
  options.backend = "native";
  options.precision = "fp32";
  options.threads = 1;
  tiedexport::Session session(bundle, options);
  expect(session.backend() == "native" && session.precision() == "fp32", "what was asked for");
  check_errors(bundle, session);
  tiedexport::Session moved(std::move(session));
  expect(session.backend().empty() && session.description().empty(), "a moved session is empty");
  return moved;
}

void run(char** paths) {
  const std::vector<float> input = read(paths[1]);
  tiedexport::Session session = opened(paths[0]);
  const std::vector<float> code = session.encode(input);
  const std::vector<float> output = session.decode(code);
  std::vector<float> at_once(input.size());
  session.reconstruct(input, at_once);
  for (std::size_t i = 0; i < output.size(); ++i)
    expect(output[i] - at_once[i] < 1e-5F && at_once[i] - output[i] < 1e-5F, "one path or two");
  std::ofstream file(paths[2], std::ios::binary);
  file.write(reinterpret_cast<const char*>(at_once.data()),
             static_cast<std::streamsize>(at_once.size() * sizeof(float)));
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) return 2;
  try {
    run(words + 1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return failures;
}
