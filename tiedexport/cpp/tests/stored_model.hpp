// A model made up for a test: tensors that are exact in their stored type, and the file of them.
#pragma once

#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "bundle.hpp"

namespace tiedexport::internal {

struct StoredTensor {
  Type type;
  std::vector<std::size_t> shape;
  std::vector<double> values;
};
using StoredTensors = std::map<std::string, StoredTensor>;

/// Bits of a value that the type holds exactly and not as a subnormal.
inline std::uint32_t bits_of(double value, Type type) {
  const auto single = static_cast<float>(value);
  std::uint32_t bits;
  std::memcpy(&bits, &single, sizeof bits);
  if (type == Type::fp32) return bits;
  if (type == Type::bf16) return bits >> 16;
  const std::uint32_t sign = bits >> 31 << 15;
  const std::uint32_t exponent = (bits >> 23 & 0xFFU);
  return exponent == 0 ? sign : sign | ((exponent - 112) << 10 | (bits >> 13 & 0x3FFU));
}

/// The value of `bits`, 0 for a subnormal of fp16.
inline double value_of(std::uint32_t bits, Type type) {
  if (type == Type::bf16) bits <<= 16;
  if (type == Type::fp16) {
    const std::uint32_t exponent = bits >> 10 & 0x1FU;
    const std::uint32_t wider = exponent == 31 ? 255 : exponent + 112;
    const std::uint32_t magnitude = exponent == 0 ? 0U : wider << 23 | (bits & 0x3FFU) << 13;
    bits = (bits >> 15) << 31 | magnitude;
  }
  float single;
  std::memcpy(&single, &bits, sizeof single);
  return static_cast<double>(single);
}

/// Densely packed, as in a file.
inline std::vector<std::byte> packed(const std::vector<double>& values, Type type) {
  std::vector<std::byte> bytes(values.size() * size_of(type));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t bits = bits_of(values[i], type);
    std::memcpy(&bytes[i * size_of(type)], &bits, size_of(type));  // little-endian, as the file
  }
  return bytes;
}

/// Random multiples of 2^-7 in (-1, 1), which every type holds.
inline std::vector<double> random_values(std::size_t count, std::mt19937& random) {
  std::uniform_int_distribution<int> numerator(-127, 127);
  std::vector<double> values(count);
  for (double& value : values) value = numerator(random) / 128.0;
  return values;
}

inline StoredTensor random_tensor(Type type, const std::vector<std::size_t>& shape,
                                  std::mt19937& random) {
  std::size_t count = 1;
  for (const std::size_t size : shape) count *= size;
  return {type, shape, random_values(count, random)};
}

/// A safetensors file of the tensors.
inline std::vector<std::byte> safetensors_of(const StoredTensors& tensors) {
  std::string header;
  std::vector<std::byte> data;
  // Wider types first, so that each is aligned.
  for (const Type type : {Type::fp32, Type::fp16, Type::bf16}) {
    const char* dtype = type == Type::fp32 ? "F32" : type == Type::fp16 ? "F16" : "BF16";
    for (const auto& [name, tensor] : tensors) {
      if (tensor.type != type) continue;
      const std::vector<std::byte> bytes = packed(tensor.values, type);
      header +=
          (header.empty() ? "{\"" : ",\"") + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[";
      for (std::size_t i = 0; i < tensor.shape.size(); ++i)
        header += (i == 0 ? "" : ",") + std::to_string(tensor.shape[i]);
      header += "],\"data_offsets\":[" + std::to_string(data.size()) + "," +
                std::to_string(data.size() + bytes.size()) + "]}";
      data.insert(data.end(), bytes.begin(), bytes.end());
    }
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::vector<std::byte> file(8 + header.size());
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, 8);
  std::memcpy(file.data() + 8, header.data(), header.size());
  file.insert(file.end(), data.begin(), data.end());
  return file;
}

/// The tensors in a file that is gone with its mapping.
inline std::unique_ptr<const Weights> mapped(const StoredTensors& tensors) {
  const std::vector<std::byte> bytes = safetensors_of(tensors);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  if (file == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), file.get()) != bytes.size() ||
      std::fflush(file.get()) != 0)
    throw std::runtime_error("no temporary file");
  return std::make_unique<Weights>(fileno(file.get()), bytes.size(), "weights");
}

}  // namespace tiedexport::internal
