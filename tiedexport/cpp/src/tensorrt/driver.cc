#include "tensorrt/driver.hpp"

#include <dlfcn.h>

#include <cstdlib>

namespace tiedexport::internal::tensorrt {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";
constexpr int kOldestCuda = 11040;  // cuGraphInstantiateWithFlags
constexpr int kNoDevice = 100;
constexpr int kMajorAttribute = 75, kMinorAttribute = 76;

struct Remedy {
  int code;
  const char* words;
};
constexpr Remedy kRemedies[] = {
    {34, "take the CUDA toolkit's stubs out of LD_LIBRARY_PATH: they serve linking only"},
    {35, "update the NVIDIA driver"},
    {46, "nvidia-smi shows which process holds the GPU for itself alone"},
    {kNoDevice, "nvidia-smi must list a GPU; start containers with --gpus all"},
    {802, "systemctl start nvidia-fabricmanager, which GPUs behind NVSwitch wait for"},
    {803, "reboot: the driver was updated, and its library and its kernel module differ"},
    {804, "take the cuda-compat libraries out of LD_LIBRARY_PATH: they do not serve this GPU"},
    {999, "nvidia-modprobe -u -c=0, or reboot; dmesg tells more"},
};

Probe refused(std::string reason, int code) {
  Probe probe;
  probe.reason = std::move(reason);
  probe.remedy = "nvidia-smi must work; if not, reinstall the driver";
  for (const Remedy& remedy : kRemedies) {
    if (remedy.code == code) probe.remedy = remedy.words;
  }
  const char* hidden = std::getenv("CUDA_VISIBLE_DEVICES");
  if (code == kNoDevice && hidden != nullptr) {
    probe.reason += std::string(", with CUDA_VISIBLE_DEVICES='") + hidden + "'";
    probe.remedy = "unset CUDA_VISIBLE_DEVICES, or name a device that nvidia-smi lists";
  }
  return probe;
}

class Symbols {
 public:
  explicit Symbols(void* library) : library_(library) {}

  template <class Function>
  void find(const char* name, Function** function) {
    void* symbol = dlsym(library_, name);
    if (symbol == nullptr && missing_.empty()) missing_ = name;
    *function = reinterpret_cast<Function*>(symbol);
  }
  const std::string& missing() const { return missing_; }

 private:
  void* library_;
  std::string missing_;
};

void find_devices(Symbols* symbols, DriverCalls* calls) {
  symbols->find("cuInit", &calls->init);
  symbols->find("cuDriverGetVersion", &calls->version);
  symbols->find("cuGetErrorName", &calls->error_name);
  symbols->find("cuGetErrorString", &calls->error_string);
  symbols->find("cuDeviceGetCount", &calls->device_count);
  symbols->find("cuDeviceGet", &calls->device);
  symbols->find("cuDeviceGetName", &calls->device_name);
  symbols->find("cuDeviceGetAttribute", &calls->device_attribute);
  symbols->find("cuDevicePrimaryCtxRetain", &calls->context_retain);
  symbols->find("cuDevicePrimaryCtxRelease_v2", &calls->context_release);
  symbols->find("cuCtxPushCurrent_v2", &calls->context_push);
  symbols->find("cuCtxPopCurrent_v2", &calls->context_pop);
}

void find_memory(Symbols* symbols, DriverCalls* calls) {
  symbols->find("cuMemGetInfo_v2", &calls->memory_info);
  symbols->find("cuMemAlloc_v2", &calls->allocate);
  symbols->find("cuMemFree_v2", &calls->free);
  symbols->find("cuMemAllocHost_v2", &calls->allocate_pinned);
  symbols->find("cuMemFreeHost", &calls->free_pinned);
  symbols->find("cuMemcpyHtoDAsync_v2", &calls->copy_in);
  symbols->find("cuMemcpyDtoHAsync_v2", &calls->copy_out);
}

void find_streams(Symbols* symbols, DriverCalls* calls) {
  symbols->find("cuStreamCreate", &calls->stream_create);
  symbols->find("cuStreamDestroy_v2", &calls->stream_destroy);
  symbols->find("cuStreamSynchronize", &calls->stream_synchronize);
  symbols->find("cuStreamWaitEvent", &calls->stream_wait);
  symbols->find("cuStreamIsCapturing", &calls->stream_capturing);
  symbols->find("cuStreamBeginCapture_v2", &calls->capture_begin);
  symbols->find("cuStreamEndCapture", &calls->capture_end);
  symbols->find("cuEventCreate", &calls->event_create);
  symbols->find("cuEventDestroy_v2", &calls->event_destroy);
  symbols->find("cuEventRecord", &calls->event_record);
  symbols->find("cuEventSynchronize", &calls->event_synchronize);
  symbols->find("cuGraphInstantiateWithFlags", &calls->graph_instantiate);
  symbols->find("cuGraphDestroy", &calls->graph_destroy);
  symbols->find("cuGraphLaunch", &calls->graph_launch);
  symbols->find("cuGraphExecDestroy", &calls->graph_executable_destroy);
}

/// The first error of asking for a device's name and compute capability, or 0.
int describe(const DriverCalls& calls, int ordinal, Device* found) {
  int device = 0, major = 0, minor = 0;
  char name[256] = {};
  found->ordinal = ordinal;
  if (const int code = calls.device(&device, ordinal)) return code;
  if (const int code = calls.device_name(name, sizeof(name) - 1, device)) return code;
  if (const int code = calls.device_attribute(&major, kMajorAttribute, device)) return code;
  if (const int code = calls.device_attribute(&minor, kMinorAttribute, device)) return code;
  found->name = name;
  found->compute_capability = 10 * major + minor;
  return 0;
}

Probe ask(std::shared_ptr<const DriverCalls> calls) {
  const auto failed = [&](const char* what, int code) {
    return refused(std::string(what) + " (" + words_of(*calls, code) + ")", code);
  };
  int count = 0;
  Probe probe;
  if (const int code = calls->init(0)) return failed("the CUDA driver does not start", code);
  if (const int code = calls->version(&probe.cuda)) {
    return failed("the CUDA driver does not tell its version", code);
  }
  if (const int code = calls->device_count(&count)) {
    return failed("the CUDA driver does not count devices", code);
  }
  if (count < 1) return refused("the CUDA driver shows no device", kNoDevice);
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    Device device;
    if (const int code = describe(*calls, ordinal, &device)) {
      return failed("the CUDA driver does not show its device", code);
    }
    probe.devices.push_back(device);
  }
  probe.driver = std::move(calls);
  return probe;
}

}  // namespace

Probe probe_driver() {
  Probe none;
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* error = dlerror();
    none.reason = std::string("no NVIDIA driver: ") + kLibrary + " was not found (" +
                  (error == nullptr ? "no reason given" : error) + ")";
    none.remedy = "install the NVIDIA display driver on a machine with an NVIDIA GPU";
    return none;
  }
  const auto calls = std::make_shared<DriverCalls>();
  Symbols symbols(library);
  find_devices(&symbols, calls.get());
  if (symbols.missing().empty()) {
    int cuda = 0;
    if (calls->version(&cuda) == 0 && cuda < kOldestCuda) {
      none.reason = "the NVIDIA driver is too old: it runs programs up to CUDA " +
                    cuda_version(cuda) + ", and " + cuda_version(kOldestCuda) + " is needed";
      none.remedy = "update the NVIDIA driver";
      return none;
    }
    find_memory(&symbols, calls.get());
    find_streams(&symbols, calls.get());
  }
  if (!symbols.missing().empty()) {
    none.reason =
        std::string(kLibrary) + " is no CUDA driver, or a broken one: no " + symbols.missing();
    none.remedy = "reinstall the NVIDIA driver";
    return none;
  }
  return ask(calls);
}

std::string words_of(const DriverCalls& driver, int code) {
  const char *name = nullptr, *words = nullptr;
  if (driver.error_name(code, &name) != 0 || name == nullptr) name = "unknown error";
  if (driver.error_string(code, &words) != 0 || words == nullptr) words = "no description";
  return std::string(name) + ": " + words + " (" + std::to_string(code) + ")";
}

std::string cuda_version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

}  // namespace tiedexport::internal::tensorrt
