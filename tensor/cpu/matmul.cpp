// Matrix products by OpenBLAS, cut so that results do not depend on the number of threads.
//
// Threaded OpenBLAS rounds differently with the number of threads. So each BLAS call here is
// single-threaded and covers one panel of the output; panels run under parallel_for. The cut is a
// function of the sizes alone and never splits K, the dimension that is summed over.
#include "tensor/matmul_layout.h"

#include <cblas.h>

#include <cstdio>
#include <cstring>
#include <mutex>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "tensor/functors.h"
#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

void warn_unless_openmp_blas() {
  constexpr int kOpenMp = 2;
  if (openblas_get_parallel() == kOpenMp) return;
  openblas_set_num_threads(1);
  std::fprintf(stderr,
               "centroid: warning: this OpenBLAS is not the OpenMP build; matrix products may be "
               "slow (make deps installs libopenblas-openmp-dev)\n");
}

// Keeps BLAS calls of this thread single-threaded while it lives. The OpenMP build of OpenBLAS uses
// as many threads as omp_get_max_threads() says, which is a setting of the calling thread.
class SerialBlas {
 public:
  SerialBlas() {
    static std::once_flag once;
    std::call_once(once, warn_unless_openmp_blas);
#if defined(_OPENMP)
    before_ = omp_get_max_threads();
    if (before_ != 1) omp_set_num_threads(1);
#else
    thread_local const bool set = (openblas_set_num_threads(1), true);
    (void)set;
#endif
  }
  ~SerialBlas() {
#if defined(_OPENMP)
    if (before_ != 1) omp_set_num_threads(before_);
#endif
  }
  SerialBlas(const SerialBlas&) = delete;

 private:
  int before_ = 1;
};

void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int64_t m, int64_t p, int64_t k, const float* a,
          int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc) {
  cblas_sgemm(CblasRowMajor, ta, tb, m, p, k, 1, a, lda, b, ldb, 0, c, ldc);
}

void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int64_t m, int64_t p, int64_t k, const double* a,
          int64_t lda, const double* b, int64_t ldb, double* c, int64_t ldc) {
  cblas_dgemm(CblasRowMajor, ta, tb, m, p, k, 1, a, lda, b, ldb, 0, c, ldc);
}

// A batch of matrices. Strides follow from the layout: those of size-1 dimensions may be anything.
struct Operand {
  MatrixLayout layout;
  int64_t batch_stride, row_stride, col_stride;

  explicit Operand(const Tensor& x)
      : layout(*matrix_layout(x.size(1), x.size(2), x.strides()[1], x.strides()[2])),
        batch_stride(x.size(0) == 1 ? 0 : x.strides()[0]),
        row_stride(layout.transposed ? 1 : layout.ld),
        col_stride(layout.transposed ? layout.ld : 1) {}
  CBLAS_TRANSPOSE trans() const { return layout.transposed ? CblasTrans : CblasNoTrans; }
};

// A batch of products: N of (M, K) x (K, P), and how it is cut.
struct Problem {
  int64_t n, m, p, k;
  int64_t panel_n = 1, panel_m = 0, panel_p = 0;

  double flops() const { return 2.0 * n * m * p * k; }
};

// When all items share b and the rows of a follow each other through the batch, the batch is one
// taller matrix: larger panels, and b is packed once.
void merge_shared_b(Problem& s, const Operand& a, const Operand& b) {
  const bool rows_follow = !a.layout.transposed && a.batch_stride == s.m * a.layout.ld;
  if (s.n > 1 && b.batch_stride == 0 && rows_follow) {
    s.m *= s.n;
    s.n = 1;
  }
}

int64_t halve(int64_t size) { return (size / 2 + 15) / 16 * 16; }

// A batch is cut between its items. Items of a small batch are halved along the longer side: down
// to four panels as long as that leaves useful work in each, since packing the operands again for
// each panel costs about 1 / side of the product; further only where panels stay large.
void cut(Problem& s) {
  constexpr double kMinPanelFlops = 1e6, kMaxChunkFlops = 4e6;
  constexpr int64_t kFewPanels = 4, kManyPanels = 16;
  constexpr int64_t kSmallSide = 64, kLargeSide = 512, kMaxSide = int64_t{1} << 20;
  s.panel_m = std::min(s.m, kMaxSide);
  s.panel_p = std::min(s.p, kMaxSide);
  if (s.flops() < 2 * kMinPanelFlops) {
    s.panel_n = s.n;  // too little work to wake threads for
    return;
  }
  const double item_flops = s.flops() / s.n;
  if (s.n >= 2 * kFewPanels) {
    const double most = std::max(1.0, kMaxChunkFlops / item_flops);
    s.panel_n = static_cast<int64_t>(std::clamp<double>(s.n / (2 * kFewPanels), 1, most));
    return;
  }
  double flops = item_flops;
  for (int64_t panels = s.n; panels < kManyPanels && flops >= 2 * kMinPanelFlops; panels *= 2) {
    int64_t& side = s.panel_m >= s.panel_p ? s.panel_m : s.panel_p;
    if (side < 2 * (panels < kFewPanels ? kSmallSide : kLargeSide)) break;
    side = halve(side);
    flops /= 2;
  }
}

template <typename T>
void matmul_of(const Tensor& ta, const Tensor& tb, const Tensor& ty) {
  const Operand a(ta), b(tb);
  Problem s{ty.size(0), ty.size(1), ty.size(2), ta.size(2)};
  T* y = ty.data<T>();
  if (s.n * s.m * s.p == 0) return;
  if (s.k == 0) {
    std::memset(y, 0, sizeof(T) * s.n * s.m * s.p);
    return;
  }
  merge_shared_b(s, a, b);
  cut(s);
  const T *pa = ta.data<T>(), *pb = tb.data<T>();
  const int64_t rows = (s.m + s.panel_m - 1) / s.panel_m, cols = (s.p + s.panel_p - 1) / s.panel_p;
  parallel_for(0, s.n * rows * cols, s.panel_n, [&](int64_t begin, int64_t end) {
    const SerialBlas serial;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / (rows * cols);
      const int64_t m = i / cols % rows * s.panel_m, p = i % cols * s.panel_p;
      gemm(a.trans(), b.trans(), std::min(s.panel_m, s.m - m), std::min(s.panel_p, s.p - p), s.k,
           pa + n * a.batch_stride + m * a.row_stride, a.layout.ld,
           pb + n * b.batch_stride + p * b.col_stride, b.layout.ld, y + (n * s.m + m) * s.p + p,
           s.p);
    }
  });
}

// The bias is added, the value kept and the activation applied while each row is in cache.
template <typename T, typename F>
void add_bias_act_rows(const T* bias, const F& act, T* pre, T* y, int64_t rows, int64_t n) {
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, n));
  parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      T* __restrict row = y + r * n;
      const T* __restrict added = bias;
      if (added) {
        for (int64_t i = 0; i < n; ++i) row[i] += added[i];
      }
      if (pre) std::memcpy(pre + r * n, row, sizeof(T) * n);
      for (int64_t i = 0; i < n; ++i) row[i] = act(row[i]);
    }
  });
}

}  // namespace

void matmul(const Tensor& a, const Tensor& b, const Tensor& y) {
  dispatch_float(y.dtype(), "matmul", [&]<typename T>() { matmul_of<T>(a, b, y); });
}

void add_bias_act(const Tensor& bias, Unary act, bool has_act, const Tensor& pre, const Tensor& y) {
  dispatch_float(y.dtype(), "add_bias_act", [&]<typename T>() {
    const T* pbias = bias.defined() ? bias.data<T>() : nullptr;
    T* ppre = pre.defined() ? pre.data<T>() : nullptr;
    const auto run = [&](const auto& f) {
      add_bias_act_rows(pbias, f, ppre, y.data<T>(), y.size(0), y.size(1));
    };
    if (!has_act) return run([](T x) { return x; });
    with_unary<T>(act, T(0), T(0), run);
  });
}

}  // namespace centroid::cpu
