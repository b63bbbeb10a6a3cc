#pragma once
// The program `bench`: every command checks results first, then times.
#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace centroid::apps {

void register_bench_ops(CLI::App& app);        ///< kernels beside the machine's limits
void register_bench_attention(CLI::App& app);  ///< attention variants over the length
void register_bench_train(CLI::App& app);      ///< one training step of a speech model

/// Seconds that one call takes, with all it starts on the default device.
double time_once(const std::function<void()>& f);

/// Seconds of each of `rounds` calls, after one that is not counted.
std::vector<double> time_rounds(int rounds, const std::function<void()>& f);

double median(std::vector<double> values);

/// Bytes per second (read + written) of copying a large block on the default device (on the CPU
/// with all threads, by memcpy): the best of several.
double copy_bandwidth();

/// Multiply-add throughput in FLOP/s: on the CPU of all threads on registers, on a CUDA device of
/// a product of large matrices; the best of several.
double peak_flops();

/// The OpenBLAS kernels in use, such as `SkylakeX`.
std::string blas_kernels();

/// The instructions that our own kernels are compiled for, such as `AVX-512`.
std::string own_kernels();

}  // namespace centroid::apps
