// tiedexport-run: a bundle and a .npy in, a .npy out. An example of the C++ interface.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "npy.hpp"
#include "tiedexport/tiedexport.hpp"

namespace run_tool {
namespace {

/// "[batch, 28, 28]"
std::string any_batch(const tiedexport_tensor& tensor) {
  std::string text = "[batch";
  for (std::size_t i = 0; i < tensor.rank; ++i) text += ", " + std::to_string(tensor.shape[i]);
  return text + "]";
}

/// [batch, shape...] of a stage's input or output.
std::vector<std::size_t> shape_of(const tiedexport_tensor& tensor, std::size_t batch) {
  std::vector<std::size_t> shape{batch};
  shape.insert(shape.end(), tensor.shape, tensor.shape + tensor.rank);
  return shape;
}

void check_input(const Array& input, const tiedexport_tensor& tensor) {
  if (input.type != tensor.type)
    throw std::runtime_error(std::string("the input is of the wrong type\n  got: ") +
                             name_of(input.type) + "\n  expected: " + name_of(tensor.type));
  const std::size_t batch = input.shape.empty() ? 0 : input.shape[0];
  if (input.shape != shape_of(tensor, batch))
    throw std::runtime_error("the input is of the wrong shape\n  got: " + text_of(input.shape) +
                             "\n  expected: " + any_batch(tensor));
}

/// Median and minimum of `calls` calls, after a few that warm caches and threads up.
template <class Call>
void time_calls(int calls, const Call& call) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times_us;
  for (int i = -std::max(3, calls / 10); i < calls; ++i) {
    const auto begin = Clock::now();
    call();
    const std::chrono::duration<double, std::micro> time = Clock::now() - begin;
    if (i >= 0) times_us.push_back(time.count());
  }
  std::sort(times_us.begin(), times_us.end());
  std::printf("median %.2f us, minimum %.2f us, %d calls\n", times_us[times_us.size() / 2],
              times_us[0], calls);
}

/// `T` is float, or std::uint16_t for the bits of fp16 and bf16.
template <class T>
void run_typed(tiedexport::Session& session, const Arguments& arguments, const Array& input,
               Array& output) {
  const tiedexport::Span<const T> in(reinterpret_cast<const T*>(input.bytes.data()),
                                     input.bytes.size() / sizeof(T));
  const tiedexport::Span<T> out(reinterpret_cast<T*>(output.bytes.data()),
                                output.bytes.size() / sizeof(T));
  session.run(arguments.stage.c_str(), in, out);
  if (arguments.timed_calls > 0)
    time_calls(arguments.timed_calls, [&] { session.run(arguments.stage.c_str(), in, out); });
}

void run_bundle(const Arguments& arguments) {
  const tiedexport::Bundle bundle(arguments.bundle, arguments.check);
  const tiedexport::Stage stage = bundle.stage(arguments.stage);
  const Array input = read_npy(arguments.input);
  check_input(input, stage.input);
  tiedexport::Session session(bundle, arguments.options);
  if (arguments.timed_calls > 0)
    std::printf("%s %s: %s\n", session.backend().c_str(), session.precision().c_str(),
                session.description().c_str());
  Array output{stage.output.type, shape_of(stage.output, input.shape[0]), {}};
  output.bytes.resize(input.shape[0] * stage.output.sample_bytes);
  if (stage.input.type == TIEDEXPORT_FP32)
    run_typed<float>(session, arguments, input, output);
  else
    run_typed<std::uint16_t>(session, arguments, input, output);
  write_npy(arguments.output, output);
}

void print_info() {
  std::vector<char> text(tiedexport_info(nullptr, 0) + 1);
  tiedexport_info(text.data(), text.size());
  std::fputs(text.data(), stdout);
}

void run(const std::vector<std::string>& words) {
  const Arguments arguments = parse_arguments(words);
  if (arguments.help)
    std::fputs(help_text, stdout);
  else if (arguments.version)
    std::printf("tiedexport-run %s\n", tiedexport_version());
  else if (arguments.info)
    print_info();
  else
    run_bundle(arguments);
  if (std::fflush(stdout) != 0) throw std::runtime_error("cannot write to the standard output");
}

}  // namespace
}  // namespace run_tool

int main(int count, char** words) {
  try {
    run_tool::run(std::vector<std::string>(words + 1, words + count));
    return 0;
  } catch (const run_tool::UsageError& error) {
    std::fprintf(stderr, "%s\nTry: tiedexport-run --help\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
