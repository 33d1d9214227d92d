// Convolutions by a matrix unit, whose registers are tiles of up to 16 rows of 64 bytes: templates over a
// struct `Unit` that wraps it and a struct `Kind` of elements. Included by kernels_amx.cpp and
// kernels_amx_emulated.cpp, in an anonymous namespace of each, after kernels_bytes.h; see kernels.h for why.
//
// One multiplication adds to a tile of sums (16 windows x 16 channels) the products of a tile of the input
// (16 windows, `step_bytes` of each) and a tile of weights (as many bytes of 16 channels). The windows are
// read where they lie, since those of a tile are equally far apart (TileRuns), and so are the weights, which
// panels hold as the unit takes them. Four tiles of sums stay in the unit, of two tiles of windows and two of
// weights, while the window is walked: a multiplication for each tile that is loaded.
//
// A Unit has, with the numbers of its eight tiles as template arguments: configure(the architecture's 64
// bytes), release(), load<tile>(from, pitch) and store<tile>(to, pitch), with bytes from one row to the next,
// and multiply_bfloat16<sums, windows, weights>() and multiply_bytes<sums, windows, weights>(). A Kind has
// Sum (what tiles of sums hold), kElementBytes (of the input), start(task) (what the sums of each channel
// begin with), multiply<Unit, sums, windows, weights>(), and finish<pixels, vectors>(task, pixels, rows of
// sums).

// The 64 bytes that say how large tiles are.
struct TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfiguration) == 64);

constexpr int kTileRowBytes = 64;
constexpr int kTileChannels = 16;
// Tiles of windows, and of weights, that are multiplied with each other.
constexpr int kTilesAbreast = 2;
// Tiles of windows whose sums are made in parts, so that the weights of a part are read from the first-level
// cache by all but the first of them: 32 KiB of weights, and 16 of sums on the stack.
constexpr int kTilesOfGroup = 8;
constexpr int64_t kStepsOfPart = 16;
// How many steps ahead weights are fetched that no tile has used yet. Behind a panel's last lie the next
// one's.
constexpr int64_t kStepsAhead = 4;

// The numbers of the tiles.
constexpr int sum_tile(int row, int column) {
  return kTilesAbreast * row + column;
}
constexpr int window_tile(int row) {
  return kTilesAbreast * kTilesAbreast + row;
}
constexpr int weight_tile(int column) {
  return kTilesAbreast * kTilesAbreast + kTilesAbreast + column;
}

template <class Unit>
void begin_tiles(const ConvTask& task) noexcept {
  TileConfiguration configuration;
  const auto set = [&](int tile, int64_t rows, int64_t row_bytes) {
    configuration.rows[tile] = static_cast<uint8_t>(rows);
    configuration.row_bytes[tile] = static_cast<uint16_t>(row_bytes);
  };
  for (int i = 0; i < kTilesAbreast; ++i) {
    for (int k = 0; k < kTilesAbreast; ++k) {
      set(sum_tile(i, k), kTileRows, kTileRowBytes);
    }
    set(window_tile(i), kTileRows, task.runs.step_bytes);
    set(weight_tile(i), task.runs.step_bytes / 4, kTileRowBytes);
  }
  Unit::configure(&configuration);
}

template <class Unit>
void end_tiles() noexcept {
  Unit::release();
}

// Windows [start, start + kTileRows) of the run that begins with row `row` of the output; of these the task's
// that no tile before it has are [first, last).
struct WindowTile {
  int64_t row;
  int64_t start;
  int64_t first;
  int64_t last;
};

// The tiles that a task's pixels take. Near the end of a run a tile begins earlier than its first pixel.
class TileWalk {
 public:
  explicit TileWalk(const ConvTask& task)
      : task_(task), end_(task.runs.pitch == 0 ? 0 : window_of(task.last - 1) + 1), pixel_(task.first) {}

  bool next(WindowTile& tile) {
    if (pixel_ >= task_.last) {
      return false;
    }
    const TileRuns& runs = task_.runs;
    const int64_t row = pixel_ / task_.width;
    const int64_t column = pixel_ % task_.width;
    tile.row = runs.pitch == 0 ? row : 0;
    tile.first = runs.pitch == 0 ? column : window_of(pixel_);
    tile.start = least(tile.first, runs.length - kTileRows);
    tile.last = tile.start + kTileRows;
    if (runs.pitch == 0) {
      tile.last = least(tile.last, column + task_.last - pixel_);
      pixel_ += tile.last - tile.first;
    } else {
      tile.last = least(tile.last, end_);
      pixel_ = tile.last / runs.pitch * task_.width + least(tile.last % runs.pitch, task_.width);
    }
    return true;
  }

 private:
  static int64_t least(int64_t x, int64_t y) {
    return x < y ? x : y;
  }
  int64_t window_of(int64_t pixel) const {
    return pixel / task_.width * task_.runs.pitch + pixel % task_.width;
  }

  const ConvTask& task_;
  const int64_t end_;  // the window behind the task's last; of one run
  int64_t pixel_;      // the next
};

// Some of the pixels of a block, where finish_block asks for them.
struct ListedPixels {
  const int64_t* outputs;
  const int64_t* residuals;

  int64_t output(int p) const {
    return outputs[p];
  }
  int64_t residual(int p) const {
    return residuals[p];
  }
};

// The pixels of tiles: which rows of their sums are theirs, and where they go.
struct PixelList {
  static constexpr int kMost = kTilesAbreast * static_cast<int>(kTileRows);

  void add(const ConvTask& task, const WindowTile& tile, int64_t first_row) {
    const int64_t pitch = task.runs.pitch;
    int64_t row = pitch == 0 ? tile.row : tile.first / pitch;
    int64_t column = pitch == 0 ? tile.first : tile.first % pitch;
    for (int64_t window = tile.first; window < tile.last; ++window) {
      if (column < task.width) {
        rows[count] = first_row + window - tile.start;
        outputs[count] = row * task.output_strides.row + column * task.output_strides.column;
        residuals[count] = row * task.residual_strides.row + column * task.residual_strides.column;
        ++count;
      }
      if (++column == pitch) {
        column = 0;
        ++row;
      }
    }
  }

  int count = 0;
  int64_t rows[kMost];
  int64_t outputs[kMost];
  int64_t residuals[kMost];
};

template <class Isa>
struct Bfloat16Tiles {
  using Sum = float;
  static constexpr int64_t kElementBytes = 2;

  static const Sum* start(const ConvTask& task) {
    return task.bias;
  }
  template <class Unit, int kSums, int kWindows, int kWeights>
  SENET_INLINE static void multiply() {
    Unit::template multiply_bfloat16<kSums, kWindows, kWeights>();
  }
  template <int kPixels, int kVectors>
  SENET_INLINE static void finish(const ConvTask& task, const ListedPixels& pixels, const Sum* const* rows) {
    typename Isa::Vector sums[kPixels][kVectors];
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[p][v] = Isa::load(rows[p] + v * Isa::kWidth);
      }
    }
    finish_block<Isa>(task, pixels, sums);
  }
};

template <class Isa>
struct ByteTiles {
  using Sum = int32_t;
  static constexpr int64_t kElementBytes = 1;

  static const Sum* start(const ConvTask& task) {
    return task.start;
  }
  template <class Unit, int kSums, int kWindows, int kWeights>
  SENET_INLINE static void multiply() {
    Unit::template multiply_bytes<kSums, kWindows, kWeights>();
  }
  template <int kPixels, int kVectors>
  SENET_INLINE static void finish(const ConvTask& task, const ListedPixels& pixels, const Sum* const* rows) {
    typename Isa::Ints sums[kPixels][kVectors];
#pragma GCC unroll 16
    for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[p][v] = Isa::load_ints(rows[p] + v * Isa::kWidth);
      }
    }
    ByteBlock<Isa, kVectors>::template finish<0, kPixels>(task, pixels, sums);
  }
};

// Finishes pixels from `first` on, as long as kPixels of them are left; then with fewer at a time.
template <class Kind, int kColumns, int kPixels = 8>
void finish_pixels(const ConvTask& task, const PixelList& list, const typename Kind::Sum* sums,
                   int first = 0) {
  for (; first + kPixels <= list.count; first += kPixels) {
    const typename Kind::Sum* rows[kPixels];
    for (int p = 0; p < kPixels; ++p) {
      rows[p] = sums + list.rows[first + p] * kColumns * kTileChannels;
    }
    const ListedPixels pixels{list.outputs + first, list.residuals + first};
    Kind::template finish<kPixels, kColumns>(task, pixels, rows);
  }
  if constexpr (kPixels > 1) {
    finish_pixels<Kind, kColumns, kPixels / 2>(task, list, sums, first);
  }
}

template <class Kind, int kColumns>
void prefetch_pixels(const ConvTask& task, const PixelList& list) {
  for (int i = 0; i < list.count; ++i) {
    if (task.residual != nullptr) {
      __builtin_prefetch(static_cast<const char*>(task.residual) + list.residuals[i] * Kind::kElementBytes);
    }
    if (task.output != nullptr && task.prefetch_output) {
      __builtin_prefetch(static_cast<const char*>(task.output) + list.outputs[i] * Kind::kElementBytes, 1);
    }
  }
}

// Some of the steps of a window.
struct TileSteps {
  int64_t first;
  int64_t last;
  bool are_first;  // the sums begin with them
  bool are_last;
};

// kRows tiles of windows by kColumns tiles of channels, for some of the steps. `sums` keeps what they come to
// between these: [window][channel].
template <class Unit, class Kind, int kRows, int kColumns>
void multiply_tiles(const ConvTask& task, const WindowTile* tiles, const TileSteps& steps,
                    bool are_weights_new, typename Kind::Sum* sums) {
  constexpr int64_t kSumPitch = kColumns * kTileRowBytes;
  constexpr int64_t kTileSums = kTileRows * kColumns * kTileChannels;
  PixelList list;
  if (steps.are_last) {
    for (int r = 0; r < kRows; ++r) {
      list.add(task, tiles[r], r * kTileRows);
    }
    prefetch_pixels<Kind, kColumns>(task, list);
  }
  // A pitch of 0: every row begins with the same numbers.
  const typename Kind::Sum* from = steps.are_first ? Kind::start(task) : sums;
  const int64_t from_pitch = steps.are_first ? 0 : kSumPitch;
  const int64_t from_tile = steps.are_first ? 0 : kTileSums;
  Unit::template load<sum_tile(0, 0)>(from, from_pitch);
  if constexpr (kColumns > 1) {
    Unit::template load<sum_tile(0, 1)>(from + kTileChannels, from_pitch);
  }
  if constexpr (kRows > 1) {
    Unit::template load<sum_tile(1, 0)>(from + from_tile, from_pitch);
    if constexpr (kColumns > 1) {
      Unit::template load<sum_tile(1, 1)>(from + from_tile + kTileChannels, from_pitch);
    }
  }

  const char* windows[kRows];
  for (int r = 0; r < kRows; ++r) {
    windows[r] = static_cast<const char*>(task.input) +
                 (tiles[r].row * task.input_strides.row + tiles[r].start * task.input_strides.column) *
                     Kind::kElementBytes;
  }
  const int64_t window_pitch = task.input_strides.column * Kind::kElementBytes;
  const int64_t step_bytes = task.runs.step_bytes;
  const int64_t tap_bytes = task.tap_length * Kind::kElementBytes;
  const int64_t weight_bytes = step_bytes * kColumns * kTileChannels;
  const char* weights = static_cast<const char*>(task.weights) + steps.first * weight_bytes;
  int64_t tap = steps.first * step_bytes / tap_bytes;
  int64_t at = steps.first * step_bytes % tap_bytes;
  for (int64_t step = steps.first; step < steps.last; ++step) {
    if (are_weights_new) {
      for (int64_t line = 0; line < weight_bytes; line += kTileRowBytes) {
        __builtin_prefetch(weights + kStepsAhead * weight_bytes + line);
      }
    }
    const int64_t offset = task.taps[tap] * Kind::kElementBytes + at;
    Unit::template load<weight_tile(0)>(weights, kSumPitch);
    if constexpr (kColumns > 1) {
      Unit::template load<weight_tile(1)>(weights + kTileRowBytes, kSumPitch);
    }
    Unit::template load<window_tile(0)>(windows[0] + offset, window_pitch);
    Kind::template multiply<Unit, sum_tile(0, 0), window_tile(0), weight_tile(0)>();
    if constexpr (kColumns > 1) {
      Kind::template multiply<Unit, sum_tile(0, 1), window_tile(0), weight_tile(1)>();
    }
    if constexpr (kRows > 1) {
      Unit::template load<window_tile(1)>(windows[1] + offset, window_pitch);
      Kind::template multiply<Unit, sum_tile(1, 0), window_tile(1), weight_tile(0)>();
      if constexpr (kColumns > 1) {
        Kind::template multiply<Unit, sum_tile(1, 1), window_tile(1), weight_tile(1)>();
      }
    }
    weights += weight_bytes;
    at += step_bytes;
    if (at == tap_bytes) {
      at = 0;
      ++tap;
    }
  }

  Unit::template store<sum_tile(0, 0)>(sums, kSumPitch);
  if constexpr (kColumns > 1) {
    Unit::template store<sum_tile(0, 1)>(sums + kTileChannels, kSumPitch);
  }
  if constexpr (kRows > 1) {
    Unit::template store<sum_tile(1, 0)>(sums + kTileSums, kSumPitch);
    if constexpr (kColumns > 1) {
      Unit::template store<sum_tile(1, 1)>(sums + kTileSums + kTileChannels, kSumPitch);
    }
  }
  if (steps.are_last) {
    finish_pixels<Kind, kColumns>(task, list, sums);
  }
}

template <class Unit, class Kind, int kColumns>
void convolve_panel_by_tiles(const ConvTask& task) {
  constexpr int64_t kTileSums = kTileRows * kColumns * kTileChannels;
  alignas(kTileRowBytes) typename Kind::Sum sums[kTilesOfGroup * kTileSums];
  const int64_t count = task.tap_count * task.tap_length * Kind::kElementBytes / task.runs.step_bytes;
  TileWalk walk(task);
  for (;;) {
    WindowTile tiles[kTilesOfGroup];
    int of_group = 0;
    while (of_group < kTilesOfGroup && walk.next(tiles[of_group])) {
      ++of_group;
    }
    if (of_group == 0) {
      return;
    }
    const int64_t parts = of_group <= kTilesAbreast ? 1 : (count + kStepsOfPart - 1) / kStepsOfPart;
    for (int64_t part = 0; part < parts; ++part) {
      const TileSteps steps{count * part / parts, count * (part + 1) / parts, part == 0, part + 1 == parts};
      for (int i = 0; i < of_group; i += kTilesAbreast) {
        if (i + 1 < of_group) {
          multiply_tiles<Unit, Kind, 2, kColumns>(task, tiles + i, steps, i == 0, sums + i * kTileSums);
        } else {
          multiply_tiles<Unit, Kind, 1, kColumns>(task, tiles + i, steps, i == 0, sums + i * kTileSums);
        }
      }
    }
  }
}

// Of panels of one vector or two.
template <class Unit, class Kind>
void convolve_by_tiles(const ConvTask& task) noexcept {
  if (task.vectors == 1) {
    convolve_panel_by_tiles<Unit, Kind, 1>(task);
  } else {
    convolve_panel_by_tiles<Unit, Kind, 2>(task);
  }
}

template <class Unit, class Kind>
constexpr TileKernels tile_kernels() {
  return {begin_tiles<Unit>, convolve_by_tiles<Unit, Kind>, end_tiles<Unit>};
}
