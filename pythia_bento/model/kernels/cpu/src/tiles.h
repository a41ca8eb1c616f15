// AMX: tiles of 16 rows of 64 bytes, and the product of two of them. Where PYTHIA_EMULATED_TILES is
// defined the same in plain C++, so that what is built on them is tested on any machine.
//
// A tile of activations is 16 rows (8 Rows, the high and the low bytes of each) of 64 depths; one
// of weights is 16 rows of 4 depths of 16 channels, as panels have them. 0 to 3 are sums, 4 and up
// are operands. Numbers of tiles are parts of the instructions, hence macros.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__AMX_INT8__) || defined(PYTHIA_EMULATED_TILES)
#define PYTHIA_TILES 1
#endif

#if PYTHIA_TILES
namespace pythia {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

#if PYTHIA_EMULATED_TILES
struct EmulatedTiles {
  bool is_configured;
  uint8_t rows[8][16][64];

  uint8_t (&at(int tile))[16][64] {
    if (!is_configured) abort();  // as the processor would
    return rows[tile];
  }
  void load(int tile, const void* from, int64_t stride) {
    for (int r = 0; r < 16; r++)
      std::memcpy(at(tile)[r], static_cast<const uint8_t*>(from) + r * stride, 64);
  }
  void store(int tile, void* to, int64_t stride) {
    for (int r = 0; r < 16; r++)
      std::memcpy(static_cast<uint8_t*>(to) + r * stride, at(tile)[r], 64);
  }
  void zero(int tile) { std::memset(at(tile), 0, sizeof rows[tile]); }
  // sums[16][16] += x[16][64], signed, times w[16][16][4], unsigned.
  void multiply(int sums, int x, int w) {
    for (int r = 0; r < 16; r++)
      for (int c = 0; c < 16; c++) {
        uint32_t sum;
        std::memcpy(&sum, at(sums)[r] + 4 * c, 4);
        for (int k = 0; k < 64; k++)
          sum += uint32_t(int8_t(at(x)[r][k]) * int32_t(at(w)[k / 4][4 * c + k % 4]));
        std::memcpy(at(sums)[r] + 4 * c, &sum, 4);
      }
  }
};
inline thread_local EmulatedTiles emulated_tiles = {};

#define TILE_LOAD(tile, from, stride) emulated_tiles.load(tile, from, stride)
#define TILE_STORE(tile, to, stride) emulated_tiles.store(tile, to, stride)
#define TILE_ZERO(tile) emulated_tiles.zero(tile)
#define TILE_MULTIPLY(sums, x, w) emulated_tiles.multiply(sums, x, w)
inline bool ask_for_tiles() { return true; }
inline void configure_tiles(const TileConfig&) { emulated_tiles.is_configured = true; }
inline void release_tiles() { emulated_tiles.is_configured = false; }
#else
// The compilers' own intrinsics do not say that they read memory, so stores may be moved past them.
#define TILE_LOAD(tile, from, stride)                               \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #tile                   \
               :                                                    \
               : "r"((const void*)(from)), "r"(int64_t(stride)) : "memory")
#define TILE_STORE(tile, to, stride)                                \
  asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)"               \
               :                                                    \
               : "r"((void*)(to)), "r"(int64_t(stride)) : "memory")
#define TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile : :)
#define TILE_MULTIPLY(sums, x, w) \
  asm volatile("tdpbsud %%tmm" #w ", %%tmm" #x ", %%tmm" #sums : :)

// Linux gives a process the tiles' state only when it asks; false where it cannot be had.
inline bool ask_for_tiles() {
  constexpr long ARCH_PRCTL = 158, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(ARCH_PRCTL), "D"(REQUEST_PERMISSION), "S"(TILE_DATA)
               : "rcx", "r11", "memory");
  return result == 0;
}
inline void configure_tiles(const TileConfig& config) {
  asm volatile("ldtilecfg %0" : : "m"(config));
}
inline void release_tiles() { asm volatile("tilerelease"); }
#endif

static const bool have_tiles = ask_for_tiles();  // when the library is loaded

// The tiles of this thread, while it lives. Other libraries use them too, so they are set up anew
// for each task, and given back: a thread that holds some is dearer to switch.
class Tiles {
 public:
  Tiles() {
    if (have_tiles) configure_tiles(TileConfig{});
  }
  ~Tiles() {
    if (have_tiles) release_tiles();
  }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

}  // namespace pythia
#else
namespace pythia {
struct Tiles {
  Tiles() {}  // so that an unused one is no warning
};
}  // namespace pythia
#endif
