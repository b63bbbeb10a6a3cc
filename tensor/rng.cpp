#include "tensor/rng.h"

#include <numeric>

#include "tensor/error.h"
#include "tensor/philox.h"

namespace centroid {
namespace {

// FNV-1a, finished with the splitmix64 mixer so that similar names give unrelated keys.
uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

uint64_t hash_name(uint64_t seed, std::string_view name) {
  uint64_t h = mix(seed + 0x9e3779b97f4a7c15ull) ^ 0xcbf29ce484222325ull;
  for (unsigned char c : name) h = (h ^ c) * 0x100000001b3ull;
  return mix(h);
}

}  // namespace

Rng::Rng(uint64_t seed, std::string_view stream) { state_.key = hash_name(seed, stream); }

Rng Rng::fork(std::string_view name) const { return Rng(state_.key, name); }

Rng Rng::fork(uint64_t number) const {
  return Rng(RngState{mix(state_.key + mix(number + 0x9e3779b97f4a7c15ull)), 0});
}

RngState Rng::reserve(uint64_t blocks) {
  const RngState first = state_;
  state_.counter += blocks;
  return first;
}

uint32_t Rng::next() { return philox(state_.key, state_.counter++, 0)[0]; }

double Rng::uniform() { return next() * 0x1p-32; }

double Rng::normal() { return normal_from_bits(next()); }

uint64_t Rng::below(uint64_t n) {
  CENTROID_CHECK(n > 0, "Rng::below: expected n >= 1, got 0");
  // Rejection keeps every value equally likely (Lemire's bound on 64 bits).
  const uint64_t threshold = (0 - n) % n;
  for (;;) {
    const auto block = philox(state_.key, state_.counter++, 0);
    const uint64_t bits = (uint64_t{block[1]} << 32) | block[0];
    if (bits >= threshold) return bits % n;
  }
}

std::vector<int64_t> Rng::permutation(int64_t n) {
  std::vector<int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[below(i + 1)]);
  return order;
}

}  // namespace centroid
