#include "native/program.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <memory>
#include <vector>

namespace tiedexport::internal::native {
namespace {

/// Samples are computed in chunks, so that what lies between steps stays bounded: by 8 MiB, but
/// for 64 samples of very wide stages, since smaller chunks would sweep the weights too often.
constexpr std::size_t kBytesBetween = std::size_t{8} << 20;
constexpr std::size_t kSmallestChunk = 64;
constexpr std::size_t kLargestChunk = 512;

/// To hand a part of a product to another thread takes as long as so many multiply-adds of one
/// sample: 2 to 5 µs, since what both write and read goes from core to core, 0.4 to 2 µs a line.
constexpr std::size_t kWorthSharing = std::size_t{1} << 18;
/// Weights of a stage that every thread may read from its cache, and what each needs of samples to
/// be bound by arithmetic rather than by that.
constexpr std::size_t kCacheBytes = std::size_t{8} << 20;
constexpr std::size_t kFewestSamplesEach = 4;
constexpr std::size_t kVector = 16;  // samples side by side in the widest registers

/// Value 0 is the input and value k what step k - 1 gives; value k lies in buffer k mod 2, unless
/// it is the caller's own array.
struct Buffers {
  std::array<std::size_t, 2> counts{0, 0};  // numbers of a sample
  std::size_t staging = 0;                  // numbers of a convolution, whatever the chunk
};

Buffers buffers_of(const Program& program) {
  Buffers buffers;
  if (program.input_type != Type::fp32) buffers.counts[0] = program.input_count;
  const std::size_t last = program.steps.size();
  for (std::size_t k = 1; k <= last; ++k) {
    const Step& step = program.steps[k - 1];
    if (k < last || program.output_type != Type::fp32)
      buffers.counts[k % 2] = std::max(buffers.counts[k % 2], step.out_count);
    if (step.kind == Step::Kind::conv || step.kind == Step::Kind::conv_transpose)
      buffers.staging = std::max(buffers.staging, staging_count(step.convolution));
  }
  return buffers;
}

/// Chunks of equal size: a small last one would cost a sweep of every weight for a few samples.
std::size_t chunk_of(const Buffers& buffers, std::size_t batch) {
  const std::size_t sample = (buffers.counts[0] + buffers.counts[1]) * sizeof(float);
  const std::size_t fitting = sample == 0 ? kLargestChunk : kBytesBetween / sample;
  const std::size_t limit = std::clamp(fitting, kSmallestChunk, kLargestChunk);
  const std::size_t chunks = (batch + limit - 1) / limit;
  return (batch + chunks - 1) / chunks;
}

/// Calls part(begin, end) on each worker's share of `count` numbers, whole cache lines.
template <class Part>
void for_shares(Pool& pool, std::size_t count, const Part& part) {
  pool.run([&](int index) {
    const Span span = share(count, 64, index, pool.size());
    if (span.begin < span.end) part(span.begin, span.end);
  });
}

const std::byte* at(const void* array, std::size_t index, Type type) {
  return static_cast<const std::byte*>(array) + index * size_of(type);
}
std::byte* at(void* array, std::size_t index, Type type) {
  return static_cast<std::byte*>(array) + index * size_of(type);
}

void compute(const Step& step, std::size_t batch, const float* in, float* out, float* staging,
             Context& context) {
  context.scratch.rewind();
  switch (step.kind) {
    case Step::Kind::encode:
      return encode({step.w, batch, in, step.bias, step.activation, out}, context);
    case Step::Kind::decode:
      return decode({step.w, batch, in, step.bias, step.activation, out}, context);
    case Step::Kind::pair:
      return pair(
          {step.w, batch, in, step.bias, step.activation, step.out_bias, step.out_activation, out},
          context);
    case Step::Kind::conv:
      return convolve(
          {step.convolution, step.w, batch, in, step.bias, step.activation, out, staging}, context);
    case Step::Kind::conv_transpose:
      return convolve_transposed(
          {step.convolution, step.w, batch, in, step.bias, step.activation, out, staging}, context);
    case Step::Kind::activate:
      return for_shares(context.pool, batch * step.out_count,
                        [&](std::size_t begin, std::size_t end) {
                          std::copy(in + begin, in + end, out + begin);
                          activate(step.activation, out + begin, end - begin, context.simd);
                        });
  }
}

/// Multiply-adds for a sample; of an activation, what takes as long.
std::size_t operations_of(const Step& step) {
  const std::size_t weights = step.w.rows * step.w.columns;
  switch (step.kind) {
    case Step::Kind::encode:
    case Step::Kind::decode:
      return weights;
    case Step::Kind::pair:
      return 2 * weights;
    case Step::Kind::conv:
    case Step::Kind::conv_transpose:
      return weights * step.convolution.y.grid * step.convolution.x.grid;
    case Step::Kind::activate:
      return 16 * step.out_count;
  }
  return 0;
}

/// Whether each thread computes all steps with samples of its own. That takes one hand-over in
/// all, but every thread reads every weight.
bool splits_samples(const Program& program, std::size_t batch, int threads) {
  if (threads == 1 || batch < kFewestSamplesEach * static_cast<std::size_t>(threads)) return false;
  std::size_t weight_bytes = 0, operations = 0;
  for (const Step& step : program.steps) {
    weight_bytes += step.w.rows * step.w.columns * size_of(step.w.type);
    operations += operations_of(step);
  }
  return weight_bytes <= kCacheBytes && operations * batch >= kWorthSharing;
}

/// The memory of one chunk.
struct Chunk {
  std::size_t batch;
  std::array<float*, 2> buffers;
  float* staging;
};

/// Runs the steps; returns where the last value is, which is `output` if that is not null.
const float* run_steps(const Program& program, const Chunk& chunk, const float* input,
                       float* output, Context& context, Context& alone) {
  const float* value = input;
  const std::size_t last = program.steps.size();
  for (std::size_t k = 1; k <= last; ++k) {
    float* out = k == last && output != nullptr ? output : chunk.buffers[k % 2];
    const Step& step = program.steps[k - 1];
    const bool shared = operations_of(step) * chunk.batch >= kWorthSharing;
    compute(step, chunk.batch, value, out, chunk.staging, shared ? context : alone);
    value = out;
  }
  return value;
}

void run_chunk(const Program& program, const Chunk& chunk, const std::byte* input,
               std::byte* output, Context& context, Context& alone) {
  const auto* in = reinterpret_cast<const float*>(input);
  if (program.input_type != Type::fp32) {
    for_shares(context.pool, chunk.batch * program.input_count,
               [&](std::size_t begin, std::size_t end) {
                 widen(program.input_type, at(input, begin, program.input_type), end - begin,
                       chunk.buffers[0] + begin, context.simd);
               });
    in = chunk.buffers[0];
  }
  const bool narrowed = program.output_type != Type::fp32;
  float* const out = narrowed ? nullptr : reinterpret_cast<float*>(output);
  const float* value = run_steps(program, chunk, in, out, context, alone);
  if (value == out) return;
  for_shares(context.pool, chunk.batch * program.output_count,
             [&](std::size_t begin, std::size_t end) {
               if (narrowed) {
                 narrow(program.output_type, value + begin, end - begin,
                        at(output, begin, program.output_type), context.simd);
               } else {  // a stage that only reshapes
                 std::copy(value + begin, value + end, out + begin);
               }
             });
}

/// All threads together with all samples, a chunk of them at a time.
void run_chunks(const Program& program, std::size_t batch, const void* input, void* output,
                Context context, Workspace& workspace) {
  const Buffers buffers = buffers_of(program);
  const std::size_t most = chunk_of(buffers, batch);
  workspace.values.rewind();
  Chunk chunk{most, {nullptr, nullptr}, nullptr};
  for (std::size_t i = 0; i < 2; ++i) {
    if (buffers.counts[i] != 0)
      chunk.buffers[i] = workspace.values.take_array<float>(most * buffers.counts[i]);
  }
  if (buffers.staging != 0) chunk.staging = workspace.values.take_array<float>(buffers.staging);
  Context alone{context.simd, workspace.alone, context.scratch};
  for (std::size_t done = 0; done < batch; done += chunk.batch) {
    chunk.batch = std::min(most, batch - done);
    run_chunk(program, chunk, at(input, done * program.input_count, program.input_type),
              at(output, done * program.output_count, program.output_type), context, alone);
  }
}

/// Each thread with samples of its own.
void run_parts(const Program& program, std::size_t batch, const void* input, void* output,
               Simd simd, Pool& pool, Workspace& workspace) {
  const auto threads = static_cast<std::size_t>(pool.size());
  while (workspace.parts.size() < threads) workspace.parts.push_back(std::make_unique<Workspace>());
  std::vector<std::exception_ptr> failures(threads);  // a part must not throw
  pool.run([&](int index) {
    Workspace& part = *workspace.parts[static_cast<std::size_t>(index)];
    const Span samples = share(batch, batch < kVector * threads ? 1 : kVector, index, pool.size());
    try {
      run_chunks(program, samples.end - samples.begin,
                 at(input, samples.begin * program.input_count, program.input_type),
                 at(output, samples.begin * program.output_count, program.output_type),
                 {simd, part.alone, part.products}, part);
    } catch (...) {
      failures[static_cast<std::size_t>(index)] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures)
    if (failure != nullptr) std::rethrow_exception(failure);
}

}  // namespace

void run(const Program& program, std::size_t batch, const void* input, void* output, Simd simd,
         Pool& pool, Workspace& workspace) {
  if (splits_samples(program, batch, pool.size()))
    return run_parts(program, batch, input, output, simd, pool, workspace);
  run_chunks(program, batch, input, output, {simd, pool, workspace.products}, workspace);
}

}  // namespace tiedexport::internal::native
