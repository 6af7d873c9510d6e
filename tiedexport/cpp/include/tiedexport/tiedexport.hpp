/* tiedexport: the C++17 face of tiedexport.h; header-only.
 *
 *   const tiedexport::Bundle bundle("digits.tied");       // every file's hash is checked
 *   tiedexport::Session session(bundle);                  // the best backend here
 *   std::vector<float> code = session.encode(pictures);   // [batch, latent] of [batch, features]
 *   session.reconstruct(pictures, out);                   // into the caller's memory
 *
 * Each call that can fail comes twice: one throws Error, the other begins with `try_` and returns
 * a Result; with -fno-exceptions there are the latter only. Arrays are what converts to Span, of
 * float or, for fp16 and bf16, std::uint16_t; the batch is the size of the input over that of one
 * sample. Bundles and sessions may be used from many threads at once.
 */
#ifndef TIEDEXPORT_TIEDEXPORT_HPP_
#define TIEDEXPORT_TIEDEXPORT_HPP_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "tiedexport/tiedexport.h"

namespace tiedexport {

using Stage = tiedexport_stage;

enum class Check { hash = TIEDEXPORT_CHECK_HASH, size = TIEDEXPORT_CHECK_SIZE };

/// What went wrong: what, where, got, expected, what to try.
struct Failure {
  tiedexport_status status = TIEDEXPORT_INTERNAL;
  std::string message;
};

#if defined(__cpp_exceptions)
class Error : public std::runtime_error {
 public:
  explicit Error(const Failure& failure)
      : std::runtime_error(failure.message), status_(failure.status) {}
  tiedexport_status status() const noexcept { return status_; }

 private:
  tiedexport_status status_;
};
#endif

/// A value or a Failure. `*result` needs `if (result)` before it, and failure() `if (!result)`.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : either_(std::in_place_index<0>, std::move(value)) {}
  Result(Failure failure) : either_(std::in_place_index<1>, std::move(failure)) {}

  explicit operator bool() const noexcept { return either_.index() == 0; }
  T& operator*() & noexcept { return *std::get_if<0>(&either_); }
  const T& operator*() const& noexcept { return *std::get_if<0>(&either_); }
  T&& operator*() && noexcept { return std::move(*std::get_if<0>(&either_)); }
  T* operator->() noexcept { return std::get_if<0>(&either_); }
  const T* operator->() const noexcept { return std::get_if<0>(&either_); }
  const Failure& failure() const noexcept { return *std::get_if<1>(&either_); }

#if defined(__cpp_exceptions)
  /// The value; throws Error where there is none.
  T value() && {
    if (!*this) throw Error(failure());
    return *std::move(*this);
  }
#endif

 private:
  std::variant<T, Failure> either_;
};

struct Done {};

/// A view of an array: where it begins and how many elements it has.
template <class T>
class Span {
  template <class From>
  using IfSame = std::enable_if_t<std::is_convertible_v<From (*)[], T (*)[]>>;

 public:
  constexpr Span(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  /// A std::vector, std::array, std::span, T[n], or what else std::data takes.
  template <class Array,
            class = IfSame<std::remove_pointer_t<decltype(std::data(std::declval<Array&>()))>>>
  constexpr Span(Array&& array) noexcept : data_(std::data(array)), size_(std::size(array)) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }

 private:
  T* data_;
  std::size_t size_;
};

namespace detail {

inline Failure last_failure(tiedexport_status status) { return {status, tiedexport_last_error()}; }
inline Failure refused(const char* what, std::size_t got, std::size_t expected) {
  return {TIEDEXPORT_INVALID_ARGUMENT, std::string(what) + "\n  got: " + std::to_string(got) +
                                           "\n  expected: " + std::to_string(expected)};
}

inline std::string text(const char* or_null) { return or_null == nullptr ? "" : or_null; }
struct Close {
  void operator()(tiedexport_bundle* bundle) const noexcept { tiedexport_close(bundle); }
  void operator()(tiedexport_session* session) const noexcept { tiedexport_session_close(session); }
};

/// Elements of one sample.
inline std::size_t elements(const tiedexport_tensor& tensor) {
  return static_cast<std::size_t>(tensor.sample_bytes) / (tensor.type == TIEDEXPORT_FP32 ? 4 : 2);
}

/// Of an array: float or std::uint16_t.
template <class Array>
using Element =
    std::remove_cv_t<std::remove_pointer_t<decltype(std::data(std::declval<Array&>()))>>;

}  // namespace detail

/// A bundle on disk, checked. Its sessions may outlive it.
class Bundle {
 public:
  static Result<Bundle> try_open(const std::string& path, Check check = Check::hash) {
    tiedexport_bundle* opened = nullptr;
    if (const auto status = tiedexport_open(path.c_str(), tiedexport_check(check), &opened))
      return detail::last_failure(status);
    return Bundle(opened);
  }
#if defined(__cpp_exceptions)
  explicit Bundle(const std::string& path, Check check = Check::hash)
      : Bundle(try_open(path, check).value()) {}
#endif

  /// Names, types and shapes; the names live as long as the bundle.
  std::vector<Stage> stages() const {
    std::vector<Stage> all;
    Stage stage;
    for (std::size_t i = 0; tiedexport_stage_at(get(), i, &stage) == TIEDEXPORT_OK; ++i)
      all.push_back(stage);
    return all;
  }
  Result<Stage> try_stage(const std::string& name) const {
    Stage stage;
    if (const auto status = tiedexport_stage_named(get(), name.c_str(), &stage))
      return detail::last_failure(status);
    return stage;
  }
#if defined(__cpp_exceptions)
  Stage stage(const std::string& name) const { return try_stage(name).value(); }
#endif
  /// "fp32", "fp16", "bf16", as stored.
  std::vector<std::string> precisions() const {
    std::vector<std::string> all;
    for (std::size_t i = 0; i < tiedexport_precision_count(get()); ++i)
      all.emplace_back(tiedexport_precision_at(get(), i));
    return all;
  }
  const tiedexport_bundle* get() const noexcept { return handle_.get(); }

 private:
  explicit Bundle(tiedexport_bundle* opened) : handle_(opened) {}

  std::unique_ptr<tiedexport_bundle, detail::Close> handle_;
};

/// See tiedexport_session_options; what is left alone is the default.
struct Options {
  std::string backend = {}, precision = {}, simd = {};
  int threads = 0;
  int device = 0;
};

/// A bundle opened in one backend and precision.
class Session {
 public:
  static Result<Session> try_create(const Bundle& bundle, const Options& options = {}) {
    tiedexport_session_options asked = TIEDEXPORT_SESSION_OPTIONS_INIT;
    asked.threads = options.threads;
    asked.backend = options.backend.empty() ? nullptr : options.backend.c_str();
    asked.precision = options.precision.empty() ? nullptr : options.precision.c_str();
    asked.simd = options.simd.empty() ? nullptr : options.simd.c_str();
    asked.device = options.device;
    tiedexport_session* created = nullptr;
    if (const auto status = tiedexport_session_create(bundle.get(), &asked, &created))
      return detail::last_failure(status);
    return Session{std::unique_ptr<tiedexport_session, detail::Close>(created), bundle.stages()};
  }
#if defined(__cpp_exceptions)
  explicit Session(const Bundle& bundle, const Options& options = {})
      : Session(try_create(bundle, options).value()) {}
#endif

  /// Runs a stage into the caller's memory; `out` has exactly the samples of `in`.
  template <class In, class Out>
  Result<Done> try_run(const char* stage, const In& in, Out&& out) {
    using T = detail::Element<const In>;
    return run_spans<T>(stage, in, out);
  }
  template <class In>
  Result<std::vector<detail::Element<const In>>> try_run(const char* stage, const In& in) {
    using T = detail::Element<const In>;
    const Result<Call> call = call_on<T>(stage, in);
    if (!call) return call.failure();
    std::vector<T> out(call->out_size);
    const Result<Done> done = run_spans<T>(stage, in, out);
    if (!done) return done.failure();
    return out;
  }
  template <class... T>
  auto try_encode(T&&... arrays) {
    return try_run("encoder", std::forward<T>(arrays)...);
  }
  template <class... T>
  auto try_decode(T&&... arrays) {
    return try_run("decoder", std::forward<T>(arrays)...);
  }
  template <class... T>
  auto try_reconstruct(T&&... arrays) {
    return try_run("autoencoder", std::forward<T>(arrays)...);
  }

#if defined(__cpp_exceptions)
  /// run(stage, in) returns a std::vector; run(stage, in, out) writes into `out`.
  template <class... T>
  auto run(const char* stage, T&&... arrays) {
    return try_run(stage, std::forward<T>(arrays)...).value();
  }
  template <class... T>
  auto encode(T&&... arrays) {
    return run("encoder", std::forward<T>(arrays)...);
  }
  template <class... T>
  auto decode(T&&... arrays) {
    return run("decoder", std::forward<T>(arrays)...);
  }
  template <class... T>
  auto reconstruct(T&&... arrays) {
    return run("autoencoder", std::forward<T>(arrays)...);
  }
#endif

  std::string backend() const { return detail::text(tiedexport_session_backend(get())); }
  std::string precision() const { return detail::text(tiedexport_session_precision(get())); }
  /// One line: instruction set, threads, device, versions. Empty, as those, of a moved session.
  std::string description() const { return detail::text(tiedexport_session_description(get())); }
  tiedexport_session* get() const noexcept { return handle_.get(); }

 private:
  Session(std::unique_ptr<tiedexport_session, detail::Close> created, std::vector<Stage> stages)
      : handle_(std::move(created)), stages_(std::move(stages)) {}

  struct Call {
    std::size_t batch, out_size;
  };

  /// What running a stage on `in` comes to, if `in` is whole samples of the stage's type.
  template <class T>
  Result<Call> call_on(const char* name, Span<const T> in) const {
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, std::uint16_t>,
                  "arrays are of float, or of std::uint16_t for fp16 and bf16");
    for (const Stage& stage : stages_) {
      if (std::strcmp(stage.name, name) != 0) continue;
      if (std::is_same_v<T, float> != (stage.input.type == TIEDEXPORT_FP32))
        return Failure{TIEDEXPORT_INVALID_ARGUMENT, "float is for fp32, std::uint16_t for others"};
      const std::size_t sample = detail::elements(stage.input);
      if (sample == 0 || in.size() % sample != 0)
        return detail::refused("the input is no whole number of samples", in.size(), sample);
      return Call{in.size() / sample, in.size() / sample * detail::elements(stage.output)};
    }
    return Failure{TIEDEXPORT_INVALID_ARGUMENT, std::string("the bundle has no stage ") + name};
  }

  template <class T>
  Result<Done> run_spans(const char* stage, Span<const T> in, Span<T> out) {
    const Result<Call> call = call_on(stage, in);
    if (!call) return call.failure();
    if (out.size() != call->out_size)
      return detail::refused("the output does not fit the input", out.size(), call->out_size);
    if (const auto status = tiedexport_run(get(), stage, in.data(), call->batch, out.data()))
      return detail::last_failure(status);
    return Done{};
  }

  std::unique_ptr<tiedexport_session, detail::Close> handle_;
  std::vector<Stage> stages_;  // the session keeps what their names are part of
};

}  // namespace tiedexport

#endif  // TIEDEXPORT_TIEDEXPORT_HPP_
