// How the blocks of tile_block-inl.h pass over a tile; included after it, and as often.

/// Transposes through blocks of a line of cache, so that no line is fetched twice.
void pack(const PackTask& task) {
  const std::size_t elements = task.elements - task.element;
  const std::size_t units = (elements + kElements - 1) / kElements;
  for (std::size_t from = 0; from < units; from += kLineUnits) {
    const std::size_t until = std::min(from + kLineUnits, units);
    for (std::size_t lane = 0; lane < task.lanes; ++lane) {
      const std::size_t b = task.first + lane;
      float* out = task.out + lane;
      if (b >= task.batch) {
        for (std::size_t u = from; u < until; ++u) out[u * task.out_stride] = 0;
        continue;
      }
      const float* sample = task.samples + b * task.sample_stride + task.element;
      alignas(64) float line[kLineUnits];
      line_of_units(sample + from * kElements, elements - from * kElements, line);
      for (std::size_t u = from; u < until; ++u) out[u * task.out_stride] = line[u - from];
    }
  }
}

constexpr void (*kEncodeBlocks[])(const EncodeBlock&) = {
    encode_block<1>,
    encode_block<2>,
#if TIEDEXPORT_TILE_REGISTERS == 32
    encode_block<3>,
    encode_block<4>,
#endif
};

/// All samples with the rows of `block`, units [unit, unit + block.units).
void encode_groups(const EncodeTask& task, EncodeBlock block, std::size_t unit) {
  const Groups groups{task.vectors, kGroupVectors};
  float* z = block.z;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::size_t first = groups.begin(g), vectors = groups.begin(g + 1) - first;
    block.x = task.x + (first * task.x_units + vectors * unit) * kLanes;
    block.z = z + first * kLanes;
    kEncodeBlocks[vectors - 1](block);
  }
}

/// W is read where it lies if its elements make units; the others are widened a block at a time.
void encode_rows(const EncodeTask& task, std::size_t row, std::size_t unit, std::size_t units) {
  const std::size_t element = unit * kElements, element_bytes = size_of(task.w.type);
  const std::size_t elements = std::min(units * kElements, task.w.columns - element);
  const std::size_t stride = task.w.columns * element_bytes;
  const auto* w = static_cast<const std::byte*>(task.w.data) + row * stride;
  EncodeBlock block{};
  block.w = w + element * element_bytes;
  block.w_stride = stride;
  block.rows = std::min(kRows, task.end - row);
  block.units = units;
  block.ahead = row + 2 * kRows <= task.w.rows ? block.w + kRows * stride : block.w;
  block.ahead_stride = row + kRows <= task.w.rows ? stride : 0;
  block.ahead_step = kStepUnits * kElements * element_bytes;
  block.z = task.z + (row - task.begin) * task.z_stride;
  block.z_stride = task.z_stride;
  block.accumulate = unit > 0;
  if (!made_of_units(task.w.type) || elements % kElements != 0) {
    for (std::size_t r = 0; r < block.rows; ++r) {
      stage_row(task.w.type, block.w + r * stride, elements, task.stage + r * kStagedUnits);
    }
    block.w = reinterpret_cast<const std::byte*>(task.stage);
    block.w_stride = kStagedUnits * kUnitBytes;
  }
  encode_groups(task, block, unit);
}

void encode(const EncodeTask& task) {
  const std::size_t whole_units = task.w.columns / kElements;
  const std::size_t block_units = kBlockUnits / std::max<std::size_t>(task.vectors / 4, 1);
  for (std::size_t unit = 0; unit < whole_units; unit += block_units) {
    const std::size_t units = std::min(block_units, whole_units - unit);
    for (std::size_t row = task.begin; row < task.end; row += kRows) {
      encode_rows(task, row, unit, units);
    }
  }
  if (task.w.columns % kElements == 0) return;
  for (std::size_t row = task.begin; row < task.end; row += kRows) {
    encode_rows(task, row, whole_units, 1);  // W ends within this unit
  }
}

#define TIEDEXPORT_TILE_BLOCKS(samples) \
  {decode_block<samples, 1>, decode_block<samples, 2>, decode_block<samples, kPanelVectors>}
constexpr void (*kDecodeBlocks[][3])(const DecodeBlock&, Staging&) = {
#if TIEDEXPORT_TILE_REGISTERS == 32
    TIEDEXPORT_TILE_BLOCKS(4), TIEDEXPORT_TILE_BLOCKS(5), TIEDEXPORT_TILE_BLOCKS(6),
    TIEDEXPORT_TILE_BLOCKS(7), TIEDEXPORT_TILE_BLOCKS(8),
#else
    TIEDEXPORT_TILE_BLOCKS(3),
    TIEDEXPORT_TILE_BLOCKS(4),
    TIEDEXPORT_TILE_BLOCKS(5),
    TIEDEXPORT_TILE_BLOCKS(6),
#endif
};
#undef TIEDEXPORT_TILE_BLOCKS

/// The first `columns` of a panel for `samples` samples; where a block would reach beyond either,
/// its sums are made aside.
void decode_group(DecodeBlock block, std::size_t samples, std::size_t columns, float* aside,
                  Staging& staging) {
  const std::size_t vectors = (columns + kLanes - 1) / kLanes;
  const std::size_t block_samples = std::max(samples, kFewestSamples);
  const auto decode_these = kDecodeBlocks[block_samples - kFewestSamples][vectors - 1];
  if (samples == block_samples && columns % kLanes == 0) {
    decode_these(block, staging);
    return;
  }
  float* out = block.out;
  const std::size_t stride = block.out_stride;
  block.out = aside;
  block.out_stride = kPanel;
  std::fill_n(aside, kSamples * kPanel, 0.0F);
  for (std::size_t s = 0; s < samples && block.accumulate; ++s) {
    std::copy_n(out + s * stride, columns, aside + s * kPanel);
  }
  decode_these(block, staging);
  for (std::size_t s = 0; s < samples; ++s) {
    std::copy_n(aside + s * kPanel, columns, out + s * stride);
  }
}

/// Stages all rows of the tile from `column` on, `columns` of them.
void stage_panel(const DecodeTask& task, std::size_t column, std::size_t columns, float* out) {
  const std::size_t element_bytes = size_of(task.w.type), stride = task.w.columns * element_bytes;
  const auto* w = static_cast<const std::byte*>(task.w.data) + column * element_bytes;
  for (std::size_t row = task.begin; row < task.end; row += kElements, out += kPanel) {
    const std::size_t rows = std::min(kElements, task.end - row);
    stage_columns(task.w.type, w + row * stride, stride, rows, columns, out);
  }
}

/// Starts to stage the strip at `columns` into `out`: what blocks can copy is left to them.
Staging begin_staging(const DecodeTask& task, Span columns, std::size_t blocks, float* out) {
  const std::size_t rows = task.end - task.begin, units = (rows + kElements - 1) / kElements;
  const std::size_t element_bytes = size_of(task.w.type), stride = task.w.columns * element_bytes;
  Staging staging{};
  if (rows % kElements == 0 && staged_by_blocks(task.w.type)) {
    staging.type = task.w.type;
    staging.w = static_cast<const std::byte*>(task.w.data) + task.begin * stride +
                columns.begin * element_bytes;
    staging.w_stride = stride;
    staging.panels = (columns.end - columns.begin) / kPanel;
    staging.left = staging.panels * units;
    const std::size_t steps = std::max<std::size_t>(blocks * (units / kStepUnits), 1);
    staging.a_step = (staging.left + steps - 1) / steps;
    staging.out = out;
    staging.out_stride = units * kPanel;
  }
  for (std::size_t p = staging.panels; columns.begin + p * kPanel < columns.end; ++p) {
    const std::size_t column = columns.begin + p * kPanel;
    stage_panel(task, column, std::min(kPanel, columns.end - column), out + p * units * kPanel);
  }
  return staging;
}

/// All samples with one staged panel.
void decode_panel(const DecodeTask& task, Span columns, const float* panel, float* aside,
                  Staging& staging) {
  const Groups groups{task.batch, kSamples};
  const std::size_t units = (task.end - task.begin + kElements - 1) / kElements;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const std::size_t b = groups.begin(g), samples = groups.begin(g + 1) - b;
    const DecodeBlock block{panel,
                            task.z + b,
                            task.z_stride,
                            units,
                            task.out + b * task.w.columns + columns.begin,
                            task.w.columns,
                            task.accumulate};
    decode_group(block, samples, columns.end - columns.begin, aside, staging);
  }
}

Span part_of(Span columns, std::size_t begin, std::size_t width) {
  return {std::min(begin, columns.end), std::min(begin + width, columns.end)};
}

void decode(const DecodeTask& task) {
  const std::size_t units = (task.end - task.begin + kElements - 1) / kElements;
  const std::size_t groups = Groups{task.batch, kSamples}.size();
  float* strip = task.stage;
  float* next_strip = strip + kStripPanels * units * kPanel;
  float* aside = next_strip + kStripPanels * units * kPanel;
  Span columns = part_of(task.columns, task.columns.begin, kStrip);
  Staging staging = begin_staging(task, columns, 1, strip);
  while (staging.left > 0) stage_next(staging);
  while (columns.begin < columns.end) {
    const Span next = part_of(task.columns, columns.end, kStrip);
    staging = begin_staging(task, next, groups * kStripPanels, next_strip);
    const float* panel = strip;
    for (std::size_t k = columns.begin; k < columns.end; k += kPanel, panel += units * kPanel) {
      decode_panel(task, part_of(columns, k, kPanel), panel, aside, staging);
    }
    while (staging.left > 0) stage_next(staging);
    std::swap(strip, next_strip);
    columns = next;
  }
}

const Kernels& table() {
  static constexpr Kernels kKernels = {kLanes,     kGroupVectors,
                                       kRows,      kPanel,
                                       kElements,  kRows * kStagedUnits,
                                       2 * kStrip, kSamples * kPanel,
                                       kTileRows,  kAnyBytes,
                                       kLineUnits, pack,
                                       encode,     pack,
                                       narrow,     decode};
  return kKernels;
}
