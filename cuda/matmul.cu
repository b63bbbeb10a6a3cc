// Matrix products by cuBLAS, and the pass over their result that adds a bias and applies an
// activation, 16 bytes at a time.
//
// cuBLAS counts matrices column by column: a row-major matrix is its own transpose there. So
// y = a b is computed as y^T = b^T a^T, with the operands as they lie in memory, swapped.
#include <cublas_v2.h>
#include <cuda_bf16.h>

#include "cuda/vectors.cuh"
#include "tensor/functors.h"
#include "tensor/matmul_layout.h"

namespace centroid::cuda {
namespace {

constexpr int64_t kBlasMax = INT32_MAX;

/// A batch of matrices as cuBLAS takes it.
struct Operand {
  const void* data;
  cublasOperation_t op;
  int64_t ld, batch_stride;
};

Operand operand_of(const Tensor& x) {
  const auto layout = *matrix_layout(x.size(1), x.size(2), x.strides()[1], x.strides()[2]);
  return {x.bytes(), layout.transposed ? CUBLAS_OP_T : CUBLAS_OP_N, layout.ld,
          x.size(0) == 1 ? 0 : x.strides()[0]};
}

/// N products of (M, K) and (K, P).
struct Problem {
  int64_t n, m, p, k;
};

/// When all items share b and the rows of a follow each other through the batch, the batch is one
/// taller matrix.
void merge_shared_b(Problem& s, const Operand& a, const Operand& b) {
  const bool rows_follow = a.op == CUBLAS_OP_N && a.batch_stride == s.m * a.ld;
  if (s.n > 1 && b.batch_stride == 0 && rows_follow && s.n * s.m <= kBlasMax) {
    s.m *= s.n;
    s.n = 1;
  }
}

template <typename T, typename Gemm>
void multiply(Gemm gemm, const Problem& s, const Operand& a, const Operand& b, const Tensor& y) {
  const T one = 1, zero = 0;
  const auto count = [](int64_t size) { return static_cast<int>(size); };
  CENTROID_CUDA(gemm(blas(), b.op, a.op, count(s.p), count(s.m), count(s.k), &one,
                     static_cast<const T*>(b.data), count(b.ld), b.batch_stride,
                     static_cast<const T*>(a.data), count(a.ld), a.batch_stride, &zero, y.data<T>(),
                     count(s.p), s.m * s.p, count(s.n)));
}

/// Rows of `from`, ld elements apart, rounded to bf16 into rows that begin on 16 bytes; 8 elements
/// a thread, and zeros behind the end of a row.
struct RoundRows {
  const float* from;
  int64_t width, rows, ld, batch_stride;
  int64_t packs;  // of 8 elements in a row of `to`
  bool in_vectors;
  Vector<__nv_bfloat16>* to;

  CENTROID_DEVICE void operator()(int64_t at) const {
    const int64_t row = at / packs, first = (at - row * packs) * 8, item = row / rows;
    const float* x = from + item * batch_stride + (row - item * rows) * ld + first;
    Vector<float> v[2];
    if (in_vectors) {
      v[0] = reinterpret_cast<const Vector<float>*>(x)[0];
      v[1] = reinterpret_cast<const Vector<float>*>(x)[1];
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i / 4].at[i % 4] = first + i < width ? x[i] : 0;
    }
    Vector<__nv_bfloat16> rounded;
#pragma unroll
    for (int i = 0; i < 8; ++i) rounded.at[i] = __float2bfloat16_rn(v[i / 4].at[i % 4]);
    to[at] = rounded;
  }
};

/// A copy of a (N, rows, cols) operand in bf16, held by `memory`.
Operand rounded(const Operand& x, int64_t n, int64_t rows, int64_t cols, Device device,
                Tensor& memory) {
  const bool transposed = x.op == CUBLAS_OP_T;
  const int64_t width = transposed ? rows : cols, height = transposed ? cols : rows;
  const int64_t items = x.batch_stride == 0 ? 1 : n, packs = div_up(width, 8);
  memory = empty({items, height, packs * 8}, DType::bf16, device);
  const float* from = static_cast<const float*>(x.data);
  const bool in_vectors = reinterpret_cast<uintptr_t>(from) % 16 == 0 && width % 8 == 0 &&
                          x.ld % 4 == 0 && x.batch_stride % 4 == 0;
  for_each(items * height * packs,
           RoundRows{from, width, height, x.ld, x.batch_stride, packs, in_vectors,
                     reinterpret_cast<Vector<__nv_bfloat16>*>(memory.bytes())});
  return {memory.bytes(), x.op, packs * 8, items == 1 ? 0 : height * packs * 8};
}

/// In bf16, with f32 sums.
void multiply_rounded(const Problem& s, const Operand& a, const Operand& b, const Tensor& y) {
  Tensor a_memory, b_memory;
  const Operand ra = rounded(a, s.n, s.m, s.k, y.device(), a_memory);
  const Operand rb = rounded(b, s.n, s.k, s.p, y.device(), b_memory);
  const float one = 1, zero = 0;
  const auto count = [](int64_t size) { return static_cast<int>(size); };
  CENTROID_CUDA(cublasGemmStridedBatchedEx(
      blas(), rb.op, ra.op, count(s.p), count(s.m), count(s.k), &one, rb.data, CUDA_R_16BF,
      count(rb.ld), rb.batch_stride, ra.data, CUDA_R_16BF, count(ra.ld), ra.batch_stride, &zero,
      y.data<float>(), CUDA_R_32F, count(s.p), s.m * s.p, count(s.n), CUBLAS_COMPUTE_32F,
      CUBLAS_GEMM_DEFAULT));
}

struct Identity {
  template <typename T>
  CENTROID_DEVICE T operator()(T x) const {
    return x;
  }
};

/// Vectors of kCount elements, `columns` to a row. A thread's column moves by the same amount from
/// one step to the next, so only the first needs a division.
template <typename T, int kCount, typename Act>
__global__ void __launch_bounds__(kThreads)
    add_bias_act_kernel(const Vector<T, kCount>* bias, Vector<T, kCount>* pre, Vector<T, kCount>* y,
                        int64_t count, int64_t columns, Act act) {
  const int64_t step = int64_t{gridDim.x} * kThreads, column_step = step % columns;
  int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x, column = i % columns;
  for (; i < count; i += step) {
    Vector<T, kCount> v = y[i];
    if (bias) {
      const Vector<T, kCount> added = bias[column];
#pragma unroll
      for (int j = 0; j < kCount; ++j) v.at[j] += added.at[j];
    }
    if (pre) pre[i] = v;
#pragma unroll
    for (int j = 0; j < kCount; ++j) v.at[j] = act(v.at[j]);
    y[i] = v;
    column += column_step;
    if (column >= columns) column -= columns;
  }
}

template <int kCount, typename T, typename Act>
void launch_bias_act(const Tensor& bias, const Tensor& pre, const Tensor& y, const Act& act) {
  using V = Vector<T, kCount>;
  const auto vectors = [](T* data) { return reinterpret_cast<V*>(data); };
  const int64_t count = y.numel() / kCount;
  launch(add_bias_act_kernel<T, kCount, Act>, grid_for(div_up(count, 4 * kThreads)), kThreads, 0,
         static_cast<const V*>(vectors(data_or_null<T>(bias))), vectors(data_or_null<T>(pre)),
         vectors(y.data<T>()), count, y.size(1) / kCount, act);
}

template <typename T, typename Act>
void bias_act(const Tensor& bias, const Tensor& pre, const Tensor& y, const Act& act) {
  if constexpr (std::is_same_v<T, float>) {
    bool vectors = y.size(1) % kVector<T> == 0;
    for (const Tensor* x : {&bias, &pre, &y}) {
      vectors = vectors && reinterpret_cast<uintptr_t>(data_or_null<T>(*x)) % 16 == 0;
    }
    if (vectors) return launch_bias_act<kVector<T>, T>(bias, pre, y, act);
  }
  launch_bias_act<1, T>(bias, pre, y, act);
}

}  // namespace

void matmul(const Tensor& ta, const Tensor& tb, const Tensor& y) {
  Operand a = operand_of(ta), b = operand_of(tb);
  Problem s{y.size(0), y.size(1), y.size(2), ta.size(2)};
  if (y.numel() == 0) return;
  if (s.k == 0) {
    CENTROID_CUDA(cudaMemsetAsync(y.bytes(), 0, y.numel() * size_of(y.dtype()), stream()));
    return;
  }
  CENTROID_CHECK(std::max({s.n, s.m, s.p}) <= kBlasMax, "matmul: result: expected sizes up to ",
                 kBlasMax, " on CUDA, got ", y.shape());
  merge_shared_b(s, a, b);
  constexpr int kFirstWithBf16 = 8;  // compute capability
  if (y.dtype() == DType::f64) {
    multiply<double>(cublasDgemmStridedBatched, s, a, b, y);
  } else if (math_mode() == MathMode::bf16 && limits().major >= kFirstWithBf16) {
    multiply_rounded(s, a, b, y);
  } else {
    multiply<float>(cublasSgemmStridedBatched, s, a, b, y);
  }
}

void add_bias_act(const Tensor& bias, Unary act, bool has_act, const Tensor& pre, const Tensor& y) {
  if (y.numel() == 0) return;
  dispatch_float(y.dtype(), "add_bias_act", [&]<typename T>() {
    if (!has_act) return bias_act<T>(bias, pre, y, Identity{});
    switch (act) {
      case Unary::relu: return bias_act<T>(bias, pre, y, unary::Relu<T>{});
      case Unary::gelu: return bias_act<T>(bias, pre, y, unary::Gelu<T>{});
      case Unary::silu: return bias_act<T>(bias, pre, y, unary::Silu<T>{});
      case Unary::tanh: return bias_act<T>(bias, pre, y, unary::Tanh<T>{});
      case Unary::sigmoid: return bias_act<T>(bias, pre, y, unary::Sigmoid<T>{});
      default: break;  // seldom behind a product: in a pass of its own
    }
    bias_act<T>(bias, pre, y, Identity{});
    unary(act, y, 0, 0, y);
  });
}

}  // namespace centroid::cuda
