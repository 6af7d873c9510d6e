// Every entry of TensorRT's interfaces, doing nothing: doubles override what they need. Without
// `override`, so that entries which a version of the headers lacks are merely never called.
#pragma once

#include <NvInferRuntime.h>

#include <cstdlib>

namespace tiedexport::doubles {

using namespace nvinfer1;

class NoRuntime : public apiv::VRuntime {
 public:
  virtual IRuntime* getPImpl() noexcept { return {}; }
  virtual nvinfer1::ICudaEngine* deserializeCudaEngine(void const*, std::size_t) noexcept {
    return {};
  }
  virtual void setDLACore(int32_t) noexcept {}
  virtual int32_t getDLACore() const noexcept { return {}; }
  virtual int32_t getNbDLACores() const noexcept { return {}; }
  virtual void setGpuAllocator(IGpuAllocator*) noexcept {}
  virtual void setErrorRecorder(IErrorRecorder*) noexcept {}
  virtual IErrorRecorder* getErrorRecorder() const noexcept { return {}; }
  virtual ILogger* getLogger() const noexcept { return {}; }
  virtual bool setMaxThreads(int32_t) noexcept { return {}; }
  virtual int32_t getMaxThreads() const noexcept { return {}; }
  virtual void setTemporaryDirectory(char const*) noexcept {}
  virtual char const* getTemporaryDirectory() const noexcept { return {}; }
  virtual void setTempfileControlFlags(TempfileControlFlags) noexcept {}
  virtual TempfileControlFlags getTempfileControlFlags() const noexcept { return {}; }
  virtual IPluginRegistry& getPluginRegistry() noexcept { std::abort(); }
  virtual void setPluginRegistryParent(IPluginRegistry*) noexcept {}
  virtual IRuntime* loadRuntime(char const*) noexcept { return {}; }
  virtual void setEngineHostCodeAllowed(bool) noexcept {}
  virtual bool getEngineHostCodeAllowed() const noexcept { return {}; }
  virtual nvinfer1::ICudaEngine* deserializeCudaEngineV2(IStreamReaderV2&) noexcept { return {}; }
#if NV_TENSORRT_MAJOR < 11
  virtual nvinfer1::ICudaEngine* deserializeCudaEngine(IStreamReader&) noexcept { return {}; }
#endif
};

class NoEngine : public apiv::VCudaEngine {
 public:
  virtual ICudaEngine* getPImpl() noexcept { return {}; }
  virtual int32_t getNbLayers() const noexcept { return {}; }
  virtual IHostMemory* serialize() const noexcept { return {}; }
  virtual IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept {
    return {};
  }
  virtual bool isRefittable() const noexcept { return {}; }
  virtual char const* getName() const noexcept { return {}; }
  virtual int32_t getNbOptimizationProfiles() const noexcept { return {}; }
  virtual EngineCapability getEngineCapability() const noexcept { return {}; }
  virtual void setErrorRecorder(IErrorRecorder*) noexcept {}
  virtual IErrorRecorder* getErrorRecorder() const noexcept { return {}; }
  virtual TacticSources getTacticSources() const noexcept { return {}; }
  virtual ProfilingVerbosity getProfilingVerbosity() const noexcept { return {}; }
  virtual IEngineInspector* createEngineInspector() const noexcept { return {}; }
  virtual Dims getTensorShape(char const*) const noexcept { return {}; }
  virtual DataType getTensorDataType(char const*) const noexcept { return {}; }
  virtual TensorLocation getTensorLocation(char const*) const noexcept { return {}; }
  virtual bool isShapeInferenceIO(char const*) const noexcept { return {}; }
  virtual TensorIOMode getTensorIOMode(char const*) const noexcept { return {}; }
  virtual int32_t getTensorBytesPerComponent(char const*) const noexcept { return {}; }
  virtual int32_t getTensorComponentsPerElement(char const*) const noexcept { return {}; }
  virtual TensorFormat getTensorFormat(char const*) const noexcept { return {}; }
  virtual char const* getTensorFormatDesc(char const*) const noexcept { return {}; }
  virtual int32_t getTensorVectorizedDim(char const*) const noexcept { return {}; }
  virtual Dims getProfileShape(char const*, int32_t, OptProfileSelector) const noexcept {
    return {};
  }
  virtual int32_t getNbIOTensors() const noexcept { return {}; }
  virtual char const* getIOTensorName(int32_t) const noexcept { return {}; }
  virtual HardwareCompatibilityLevel getHardwareCompatibilityLevel() const noexcept { return {}; }
  virtual int32_t getNbAuxStreams() const noexcept { return {}; }
  virtual int32_t getTensorBytesPerComponentV2(char const*, int32_t) const noexcept { return {}; }
  virtual int32_t getTensorComponentsPerElementV2(char const*, int32_t) const noexcept {
    return {};
  }
  virtual TensorFormat getTensorFormatV2(char const*, int32_t) const noexcept { return {}; }
  virtual char const* getTensorFormatDescV2(char const*, int32_t) const noexcept { return {}; }
  virtual int32_t getTensorVectorizedDimV2(char const*, int32_t) const noexcept { return {}; }
  virtual ISerializationConfig* createSerializationConfig() noexcept { return {}; }
  virtual IHostMemory* serializeWithConfig(ISerializationConfig&) const noexcept { return {}; }
  virtual IRefitter* createRefitter(ILogger&) noexcept { return {}; }
  virtual int64_t getStreamableWeightsSize() const noexcept { return {}; }
  virtual bool isDebugTensor(char const*) const noexcept { return {}; }
  virtual bool setWeightStreamingBudgetV2(int64_t) noexcept { return {}; }
  virtual int64_t getWeightStreamingBudgetV2() const noexcept { return {}; }
  virtual int64_t getWeightStreamingAutomaticBudget() const noexcept { return {}; }
  virtual int64_t getWeightStreamingScratchMemorySize() const noexcept { return {}; }
  virtual int64_t getDeviceMemorySizeV2() const noexcept { return {}; }
  virtual int64_t getDeviceMemorySizeForProfileV2(int32_t) const noexcept { return {}; }
  virtual int64_t const* getProfileTensorValuesV2(char const*, int32_t,
                                                  OptProfileSelector) const noexcept {
    return {};
  }
  virtual IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig*) noexcept {
    return {};
  }
  virtual IRuntimeConfig* createRuntimeConfig() noexcept { return {}; }
#if NV_TENSORRT_MAJOR >= 11
  virtual int64_t getEngineStat(EngineStat) const noexcept { return {}; }
#endif
  virtual char const* getAliasedInputTensor(char const*) const noexcept { return {}; }
#if NV_TENSORRT_MAJOR < 11
  virtual IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept { return {}; }
  virtual size_t getDeviceMemorySize() const noexcept { return {}; }
  virtual int32_t const* getProfileTensorValues(char const*, int32_t,
                                                OptProfileSelector) const noexcept {
    return {};
  }
  virtual bool hasImplicitBatchDimension() const noexcept { return {}; }
  virtual size_t getDeviceMemorySizeForProfile(int32_t) const noexcept { return {}; }
  virtual bool setWeightStreamingBudget(int64_t) noexcept { return {}; }
  virtual int64_t getWeightStreamingBudget() const noexcept { return {}; }
  virtual int64_t getMinimumWeightStreamingBudget() const noexcept { return {}; }
#endif
};

class NoContext : public apiv::VExecutionContext {
 public:
  virtual IExecutionContext* getPImpl() noexcept { return {}; }
  virtual void setDebugSync(bool) noexcept {}
  virtual bool getDebugSync() const noexcept { return {}; }
  virtual void setProfiler(IProfiler*) noexcept {}
  virtual IProfiler* getProfiler() const noexcept { return {}; }
  virtual ICudaEngine const& getEngine() const noexcept { std::abort(); }
  virtual void setName(char const*) noexcept {}
  virtual char const* getName() const noexcept { return {}; }
  virtual void setDeviceMemory(void*) noexcept {}
  virtual int32_t getOptimizationProfile() const noexcept { return {}; }
  virtual bool allInputDimensionsSpecified() const noexcept { return {}; }
  virtual void setErrorRecorder(IErrorRecorder*) noexcept {}
  virtual IErrorRecorder* getErrorRecorder() const noexcept { return {}; }
  virtual bool executeV2(void* const*) noexcept { return {}; }
  virtual bool setOptimizationProfileAsync(int32_t, cudaStream_t) noexcept { return {}; }
  virtual void setEnqueueEmitsProfile(bool) noexcept {}
  virtual bool getEnqueueEmitsProfile() const noexcept { return {}; }
  virtual bool reportToProfiler() const noexcept { return {}; }
  virtual bool setInputShape(char const*, Dims const&) noexcept { return {}; }
  virtual Dims getTensorShape(char const*) const noexcept { return {}; }
  virtual Dims getTensorStrides(char const*) const noexcept { return {}; }
  virtual bool setTensorAddress(char const*, void*) noexcept { return {}; }
  virtual void const* getTensorAddress(char const*) const noexcept { return {}; }
  virtual bool setInputTensorAddress(char const*, void const*) noexcept { return {}; }
  virtual bool setOutputTensorAddress(char const*, void*) noexcept { return {}; }
  virtual int32_t inferShapes(int32_t, char const**) noexcept { return {}; }
  virtual bool setInputConsumedEvent(cudaEvent_t) noexcept { return {}; }
  virtual cudaEvent_t getInputConsumedEvent() const noexcept { return {}; }
  virtual void* getOutputTensorAddress(char const*) const noexcept { return {}; }
  virtual bool setOutputAllocator(char const*, IOutputAllocator*) noexcept { return {}; }
  virtual IOutputAllocator* getOutputAllocator(char const*) noexcept { return {}; }
  virtual int64_t getMaxOutputSize(char const*) const noexcept { return {}; }
  virtual bool setTemporaryStorageAllocator(IGpuAllocator*) noexcept { return {}; }
  virtual IGpuAllocator* getTemporaryStorageAllocator() const noexcept { return {}; }
  virtual bool enqueueV3(cudaStream_t) noexcept { return {}; }
  virtual void setPersistentCacheLimit(size_t) noexcept {}
  virtual size_t getPersistentCacheLimit() const noexcept { return {}; }
  virtual bool setNvtxVerbosity(ProfilingVerbosity) noexcept { return {}; }
  virtual ProfilingVerbosity getNvtxVerbosity() const noexcept { return {}; }
  virtual void setAuxStreams(cudaStream_t*, int32_t) noexcept {}
  virtual bool setDebugListener(IDebugListener*) noexcept { return {}; }
  virtual IDebugListener* getDebugListener() noexcept { return {}; }
  virtual bool setTensorDebugState(char const*, bool) noexcept { return {}; }
  virtual bool getDebugState(char const*) const noexcept { return {}; }
  virtual bool setAllTensorsDebugState(bool) noexcept { return {}; }
  virtual size_t updateDeviceMemorySizeForShapes() noexcept { return {}; }
  virtual void setDeviceMemoryV2(void*, int64_t) noexcept {}
  virtual IRuntimeConfig* getRuntimeConfig() const noexcept { return {}; }
  virtual bool setUnfusedTensorsDebugState(bool) noexcept { return {}; }
  virtual bool getUnfusedTensorsDebugState() const noexcept { return {}; }
  virtual bool setCommunicator(void*) noexcept { return {}; }
#if NV_TENSORRT_MAJOR < 11
  virtual bool allInputShapesSpecified() const noexcept { return {}; }
#endif
};

}  // namespace tiedexport::doubles
