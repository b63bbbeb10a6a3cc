# Centroid. `make help` lists the targets; `make` builds the programs and says what it found.
SHELL := /bin/bash
.DEFAULT_GOAL := all
CONFIG ?= release
ARCH ?= native
CXX := g++
# All cores; JOBS=1 builds one file at a time. Makes below this one share its job server.
JOBS ?= $(shell nproc)
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif
BUILD := build/$(CONFIG)
BIN := $(if $(filter release,$(CONFIG)),build/bin,$(BUILD)/bin)
PREFIX ?= /usr/local
VERSION := 0.1.0
comma := ,
space := $(subst ,, )

# ---- what this machine has ------------------------------------------------------------------
have_package = $(shell pkg-config --exists $(1) 2>/dev/null && echo 1)
have_header = $(shell echo '\#include <$(1)>' | $(CXX) -E -x c++ - >/dev/null 2>&1 && echo 1)
MULTIARCH := $(shell $(CXX) -print-multiarch 2>/dev/null)
# The OpenMP build of OpenBLAS, by its folder: a plain -lopenblas may load the pthread build, whose
# own spinning thread pool fights with ours.
BLAS_DIR := $(firstword $(wildcard /usr/lib/$(MULTIARCH)/openblas-openmp))
BLAS_INC := $(if $(BLAS_DIR),-I/usr/include/$(MULTIARCH)/openblas-openmp)
BLAS_LIB := $(if $(BLAS_DIR),-L$(BLAS_DIR) -Wl$(comma)-rpath$(comma)$(BLAS_DIR)) -lopenblas
HAVE_SNDFILE := $(call have_package,sndfile)
HAVE_SAMPLERATE := $(call have_package,samplerate)
HAVE_KISSFFT := $(call have_package,kissfft-float)
HAVE_STB := $(call have_header,stb/stb_image_write.h)
HAVE_ZLIB := $(call have_header,zlib.h)
HAVE_SENTENCEPIECE := $(call have_package,sentencepiece)
APP_FLAGS := $(if $(HAVE_SNDFILE),-DCENTROID_HAVE_SNDFILE) \
  $(if $(HAVE_SAMPLERATE),-DCENTROID_HAVE_SAMPLERATE) \
  $(if $(HAVE_KISSFFT),-DCENTROID_HAVE_KISSFFT $(shell pkg-config --cflags kissfft-float)) \
  $(if $(HAVE_STB),-DCENTROID_HAVE_STB) $(if $(HAVE_ZLIB),-DCENTROID_HAVE_ZLIB) \
  $(if $(HAVE_SENTENCEPIECE),-DCENTROID_HAVE_SENTENCEPIECE)
APP_LIBS := $(if $(HAVE_SNDFILE),-lsndfile) $(if $(HAVE_SAMPLERATE),-lsamplerate) \
  $(if $(HAVE_KISSFFT),-lkissfft-float) $(if $(HAVE_ZLIB),-lz) \
  $(if $(HAVE_SENTENCEPIECE),-lsentencepiece_train -lsentencepiece)

# CUDA=0 leaves the CUDA backend out and CUDA=1 compiles it for every architecture below. Without a
# choice it is built wherever nvcc >= 12.8 is found: as PTX, which the driver compiles when a program
# starts, and for the GPU of this machine if there is one. Sanitizer builds are of the host code only.
CUDA_HOME ?= /usr/local/cuda
CUDA_ARCHS ?= 75 80 86 89 90 100 120
NVCC ?= $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
NVCC_VERSION := $(if $(NVCC),$(shell $(NVCC) --version | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1\2/p'))
NEW_NVCC := $(if $(NVCC_VERSION),$(shell [ $(NVCC_VERSION) -ge 128 ] && echo 1))
GPU_ARCHS := $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u)
CUDA ?= $(if $(and $(NEW_NVCC),$(filter release,$(CONFIG))),auto,0)
ifneq ($(CUDA),0)
ifeq ($(NEW_NVCC),)
$(error CUDA=$(CUDA): expected nvcc 12.8 or later, found $(or $(NVCC),none); set NVCC or CUDA_HOME, or build with CUDA=0)
endif
endif

# ---- flags ----------------------------------------------------------------------------------
# -fno-math-errno and -fno-trapping-math let loops vectorise and change no result.
SANITIZE_asan := -fsanitize=address,undefined -fno-sanitize-recover=all
SANITIZE_tsan := -fsanitize=thread
OPT_release := -O3
OPT_asan := -O1 -g1 $(SANITIZE_asan) -DCENTROID_SYSTEM_ALLOC
OPT_tsan := -O1 -g1 $(SANITIZE_tsan) -DCENTROID_STD_THREADS -DCENTROID_SYSTEM_ALLOC
# gcc's OpenMP runtime is not instrumented: ThreadSanitizer sees our loops on std::thread instead.
OMP := $(if $(filter tsan,$(CONFIG)),-fopenmp-simd,-fopenmp)
CXXFLAGS := -std=c++20 $(OPT_$(CONFIG)) -march=$(ARCH) -fno-math-errno -fno-trapping-math -fPIC \
  -fno-semantic-interposition -Wall -Wextra $(OMP) -I. $(BLAS_INC)
LDFLAGS := $(SANITIZE_$(CONFIG)) $(OMP)
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -Wl$(comma)-rpath$(comma)$(CUDA_HOME)/lib64 -lcublas -lcudart_static -ldl -lrt
LDLIBS := $(BLAS_LIB) -lpthread
NVCCFLAGS := -std=c++20 -O3 --extended-lambda -lineinfo -Werror all-warnings -Xcompiler -Wall,-Wextra,-fPIC -I.
PTX_FLAGS := --no-compress $(foreach a,75 80,-gencode arch=compute_$(a)$(comma)code=compute_$(a)) \
  $(foreach a,$(GPU_ARCHS),-gencode arch=compute_$(a)$(comma)code=sm_$(a))
SM_FLAGS := -Xptxas -v,--warn-on-spills,-Werror $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a)$(comma)code=sm_$(a)) \
  -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))

# ---- objects, by layer: a test program links only its own layer and those below ----------------
obj = $(patsubst %.cpp,$(BUILD)/%.o,$(1))
HOST := $(call obj,$(wildcard tensor/*.cpp tensor/cpu/*.cpp tensor/cpu/attention/*.cpp))
AUTOGRAD := $(call obj,$(wildcard autograd/*.cpp))
NN := $(call obj,$(wildcard nn/*.cpp nn/attention/*.cpp))
HOST_CORE := $(HOST) $(AUTOGRAD) $(NN)
# Device code, of three kinds: left out (stubs; variants with kernels of their own compile as C++), as
# PTX (ptx), or for every architecture (sm).
CUDA_SOURCES := $(wildcard cuda/*.cu)
VARIANT_SOURCES := $(wildcard nn/attention/*.cu)
EXAMPLE_SOURCES := $(wildcard tests/nn/*.cu)
KIND := $(if $(filter 0,$(CUDA)),host,$(if $(filter auto,$(CUDA)),ptx,sm))
DEVICE_host := $(BUILD)/cuda/stub.o
DEVICE_ptx := $(CUDA_SOURCES:%=$(BUILD)/ptx/%.o) $(BUILD)/cuda/runtime.o
DEVICE_sm := $(CUDA_SOURCES:%=$(BUILD)/sm/%.o) $(BUILD)/cuda/runtime.o
variants = $(VARIANT_SOURCES:%=$(BUILD)/$(1)/%.o)
examples = $(EXAMPLE_SOURCES:%=$(BUILD)/$(1)/%.o)
LIBS_host := $(LDLIBS)
LIBS_ptx := $(LDLIBS) $(CUDA_LIBS)
LIBS_sm := $(LIBS_ptx)
TENSOR := $(HOST) $(DEVICE_host)
CORE := $(HOST_CORE) $(DEVICE_$(KIND)) $(call variants,$(KIND))
COMMON := $(call obj,$(wildcard apps/common/*.cpp))
AUDIO := $(call obj,$(wildcard apps/audio/*.cpp))
APPS := copy asr bench attention-map report
PROGRAMS := $(APPS:%=$(BIN)/%)

.PHONY: all found
all: found
found: $(PROGRAMS)
	@echo "Centroid: $(CONFIG) build (-march=$(ARCH)) in $(BIN)"
	@echo "  BLAS         $(if $(BLAS_DIR),OpenBLAS$(comma) OpenMP build,whatever -lopenblas finds: make deps installs the OpenMP build)"
	@echo "  sound files  $(if $(HAVE_SNDFILE),libsndfile,left out: libsndfile not found (make deps))"
	@echo "  resampling   $(if $(HAVE_SAMPLERATE),libsamplerate,left out: libsamplerate not found (make deps))"
	@echo "  features     $(if $(HAVE_KISSFFT),kissfft,left out: kissfft not found (make deps))"
	@echo "  sub-words    $(if $(HAVE_SENTENCEPIECE),SentencePiece,left out: SentencePiece not found (make deps))"
	@echo "  pictures     $(if $(HAVE_STB),stb,left out: stb not found (make deps))"
	@echo "  CUDA         $(if $(filter 0,$(CUDA)),left out$(if $(NEW_NVCC),, because nvcc 12.8 or later was not found),$(if $(filter sm,$(KIND)),for sm_$(subst $(space),$(comma) sm_,$(CUDA_ARCHS)) and PTX,as PTX for sm_75 and later$(if $(GPU_ARCHS),$(comma) and for sm_$(GPU_ARCHS)); CUDA=0 leaves it out) ($(NVCC)))"

# ---- rules ----------------------------------------------------------------------------------
$(BUILD)/apps/%.o: CXXFLAGS += $(APP_FLAGS)
$(BUILD)/%.o: %.cpp
	@mkdir -p $(@D)
	@echo "  c++  $<"
	@$(CXX) $(CXXFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/cuda/runtime.o $(BUILD)/tests/cuda/%.o: CXXFLAGS += -isystem $(CUDA_HOME)/include
$(BUILD)/host/%.cu.o: %.cu
	@mkdir -p $(@D)
	@echo "  c++  $<"
	@$(CXX) $(CXXFLAGS) -MMD -MP -x c++ -c $< -o $@
$(BUILD)/ptx/%.cu.o: %.cu
	@mkdir -p $(@D)
	@echo "  nvcc $< (PTX)"
	@$(NVCC) $(NVCCFLAGS) $(PTX_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@
$(BUILD)/sm/%.cu.o: %.cu
	@mkdir -p $(@D)
	@echo "  nvcc $< (sm_$(subst $(space),$(comma) ,$(CUDA_ARCHS)))"
	@$(NVCC) $(NVCCFLAGS) $(SM_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@ 2> $@.log || { cat $@.log; exit 1; }

# Programs and tests in folder $(1) with device code of kind $(2); $(3): what is linked after it.
link = @mkdir -p $(@D) && echo "  link $@" && $(CXX) $(LDFLAGS) $(filter %.o %.a,$^) -o $@ $(APP_LIBS)
define app_rules
$(1)/copy: $(call obj,$(wildcard apps/copy*.cpp)) $(COMMON) $(HOST_CORE) $(call variants,$(2)) $(DEVICE_$(2)) $(4) ; $$(link) $(3)
$(1)/asr: $(call obj,$(wildcard apps/asr*.cpp)) $(COMMON) $(AUDIO) $(HOST_CORE) $(call variants,$(2)) $(DEVICE_$(2)) $(4) ; $$(link) $(3)
$(1)/bench: $(call obj,$(wildcard apps/bench*.cpp)) $(COMMON) $(HOST_CORE) $(call variants,$(2)) $(DEVICE_$(2)) $(4) ; $$(link) $(3)
$(1)/attention-map: $(call obj,$(wildcard apps/attention_map*.cpp)) $(BUILD)/apps/copy_task.o \
  $(BUILD)/apps/asr_model.o $(COMMON) $(AUDIO) $(HOST_CORE) $(call variants,$(2)) $(DEVICE_$(2)) $(4) ; $$(link) $(3)
endef
# Another kind of device code than last time links the programs anew.
$(BUILD)/kind.$(KIND):
	@mkdir -p $(@D) && rm -f $(BUILD)/kind.* && touch $@
$(eval $(call app_rules,$(BIN),$(KIND),$(LIBS_$(KIND)),$(BUILD)/kind.$(KIND)))
$(BIN)/report: $(call obj,$(wildcard apps/report*.cpp)) $(COMMON) $(CORE) $(BUILD)/kind.$(KIND) ; $(link) $(LIBS_$(KIND))

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# ---- tests: one program per layer ------------------------------------------------------------
TEST_LAYERS := tensor autograd nn apps
TESTS := $(TEST_LAYERS:%=$(BIN)/test_%)
test_obj = $(call obj,tests/main.cpp $(wildcard tests/$(1)/*.cpp))
# Tests are compiled for quick building: their own speed does not matter, the library's does.
$(BUILD)/tests/%.o: CXXFLAGS := $(CXXFLAGS:-O3=-O1) $(APP_FLAGS)
define test_rules
$(1)/test_tensor: $(call test_obj,tensor) $(HOST) $(DEVICE_$(2)) $(4) ; $$(link) $(3)
$(1)/test_autograd: $(call test_obj,autograd) $(HOST) $(AUTOGRAD) $(DEVICE_$(2)) $(4) ; $$(link) $(3)
$(1)/test_nn: $(call test_obj,nn) $(HOST_CORE) $(call variants,$(2)) $(call examples,$(2)) $(DEVICE_$(2)) $(4) ; $$(link) $(3)
$(1)/test_cuda: $(call test_obj,cuda) $(HOST_CORE) $(call variants,$(2)) $(call examples,$(2)) $(DEVICE_$(2)) $(4) ; $$(link) $(3)
endef
# Those of the CPU need no CUDA toolkit, whatever the programs are built with.
$(eval $(call test_rules,$(BIN),host,$(LIBS_host)))
$(BIN)/test_apps: $(call test_obj,apps) $(BUILD)/apps/copy_task.o $(BUILD)/apps/asr_model.o \
  $(BUILD)/apps/asr_data.o $(BUILD)/apps/asr_source.o \
  $(COMMON) $(AUDIO) $(HOST_CORE) $(call variants,host) $(DEVICE_host) ; $(link) $(LIBS_host)
$(BIN)/make_tones: $(BUILD)/tests/tones.o $(AUDIO) $(TENSOR) ; $(link) $(LIBS_host)

# ---- the same tests on CUDA devices --------------------------------------------------------------
# Real ones, and a virtual one (tests/vgpu) that runs the PTX of our kernels on the CPU.
.PHONY: test-cuda test-cuda-emulated run-emulated resources check-resources mutants
ifneq ($(NEW_NVCC),)
include tests/vgpu/vgpu.mk
$(eval $(call test_rules,build/device/bin,$(KIND),$(LIBS_$(KIND))))
$(eval $(call test_rules,build/emulated/bin,ptx,$(LIBS_host),$(VGPU_LIB)))
$(eval $(call app_rules,build/emulated/bin,ptx,$(LIBS_host),$(VGPU_LIB)))
DEVICE_TESTS := test_cuda test_tensor test_autograd test_nn
EMULATED := $(DEVICE_TESTS:%=build/emulated/bin/%) build/emulated/bin/copy build/emulated/bin/asr
test-cuda: $(DEVICE_TESTS:%=build/device/bin/%)
	@tests/device.sh
run-emulated: $(EMULATED) $(VGPU_TESTS) $(BIN)/make_tones
	@$(VGPU_OUT)/test_opcodes && $(VGPU_OUT)/test_vgpu
	@tests/emulated.sh
test-cuda-emulated: deps
	@$(MAKE) --no-print-directory run-emulated
# What the compiler and the virtual device say of each kernel, beside cuda/resources.txt.
EMULATED_STATS = VGPU_STATS=build/emulated/$(1).txt CENTROID_EMULATED=1 VGPU_ARCH=80 VGPU_MEMORY=2147483648 build/emulated/bin/test_cuda $(2) > /dev/null
RESOURCES = $(call EMULATED_STATS,launches) && $(call EMULATED_STATS,traffic,"[traffic]") && \
  python3 cuda/resources.py --launches build/emulated/launches.txt --traffic build/emulated/traffic.txt \
    $(CUDA_SOURCES:%=$(BUILD)/sm/%.o.log)
resources: $(DEVICE_sm) build/emulated/bin/test_cuda
	@$(RESOURCES) --write cuda/resources.txt
check-resources: $(DEVICE_sm) build/emulated/bin/test_cuda
	@$(RESOURCES) --check cuda/resources.txt
# Faults planted in the device code, which the tests have to notice: MUTANTS=8 tries a sample.
MUTANTS ?= 0
mutants: build/emulated/bin/test_cuda
	@python3 tests/vgpu/mutants.py --count $(MUTANTS) --nvcc "$(NVCC) $(NVCCFLAGS) --no-compress -gencode arch=compute_80,code=compute_80" \
	  --link "$(CXX) $(LDFLAGS) $(call test_obj,cuda) $(HOST_CORE) $(call variants,ptx) $(call examples,ptx) $(DEVICE_ptx) $(VGPU_LIB) $(LIBS_host)"
else
test-cuda test-cuda-emulated resources check-resources mutants:
	@echo "SKIPPED, not passed: $@ needs nvcc 12.8 or later, found $(or $(NVCC),none)"; exit 1
endif

.PHONY: build-tests run-tests test asan tsan fuzz bench demo recogniser report
build-tests: $(TESTS) $(BIN)/make_tones
run-tests: $(PROGRAMS) $(TESTS)
	@CENTROID_BIN=$(BIN) tests/run.sh $(TESTS)
# `deps` may install what the lines above look for, so what follows it runs in a new make.
test: deps
	@$(MAKE) --no-print-directory run-tests
# The core under sanitizers; the programs' own tests run real trainings and stay with `make test`.
asan: deps
	@$(MAKE) --no-print-directory CONFIG=asan run-tests
tsan: deps
	@$(MAKE) --no-print-directory CONFIG=tsan run-tsan
.PHONY: run-tsan
run-tsan: $(BIN)/test_tensor $(BIN)/test_autograd $(BIN)/test_nn
	@TSAN_OPTIONS=halt_on_error=1 tests/run.sh $^

FUZZERS := $(patsubst tests/fuzz/fuzz_%.cpp,%,$(wildcard tests/fuzz/fuzz_*.cpp))
FUZZ_RUNS ?= 100000
fuzz: deps
	@$(MAKE) --no-print-directory CONFIG=asan run-fuzz
.PHONY: run-fuzz
run-fuzz: $(FUZZERS:%=$(BIN)/fuzz_%)
	@for f in $(FUZZERS); do echo "== fuzz $$f"; \
	  $(BIN)/fuzz_$$f --runs $(FUZZ_RUNS) --seed 1 tests/data/* || exit 1; done
$(BIN)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/main_corpus.o $(AUDIO) $(CORE) ; $(link) $(LIBS_$(KIND))

.PHONY: readme
readme: $(PROGRAMS) $(BIN)/make_tones
	+@CENTROID_BIN=$(BIN) tests/readme.sh

bench: deps
	@$(MAKE) --no-print-directory $(BIN)/bench
	$(BIN)/bench ops
	$(BIN)/bench attention --out build/bench
	$(BIN)/bench train

# Beside other libraries, by hand: a Python with PyTorch, and folders of
# `apps/bench_peers.py build-reference FOLDER`.
TORCH_PYTHON ?= python3
REFERENCE ?= /tmp/centroid-reference
.PHONY: bench-peers
bench-peers: $(BIN)/bench
	python3 apps/bench_peers.py attention --bench $(BIN)/bench --torch-python $(TORCH_PYTHON) $(REFERENCE:%=--reference %)
	python3 apps/bench_peers.py train --bench $(BIN)/bench --torch-python $(TORCH_PYTHON)
	python3 apps/bench_peers.py train --bench $(BIN)/bench --torch-python $(TORCH_PYTHON) --dropout 0.1
	python3 apps/bench_peers.py train --bench $(BIN)/bench --attention clustered --peer reference $(REFERENCE:%=--reference %)

demo: deps
	@$(MAKE) --no-print-directory all
	@BIN=$(BIN) apps/demo.sh

# The commands of docs/asr.md, one after the other.
recogniser: deps
	@$(MAKE) --no-print-directory all
	@BIN=$(BIN) apps/recogniser.sh

# The experiments of docs/results.md: runs what is missing. REPORT_ARGS="--part copy --budget 60" ...
report: deps
	@$(MAKE) --no-print-directory all
	$(BIN)/report run $(REPORT_ARGS)
	$(BIN)/report render

# ---- dependencies ------------------------------------------------------------------------------
PACKAGES := g++ pkg-config libopenblas-openmp-dev nlohmann-json3-dev libcli11-dev catch2 libstb-dev \
  libsndfile1-dev libkissfft-dev libsamplerate0-dev zlib1g-dev libsentencepiece-dev \
  clang-format
.PHONY: deps
deps:
	@missing=; for p in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	  echo "Not a Debian or Ubuntu system: please install what these packages hold:$$missing"; exit 0; fi; \
	sudo=; if [ "$$(id -u)" != 0 ]; then sudo=sudo; fi; \
	echo "Installing:$$missing"; \
	$$sudo apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
	  $$sudo apt-get -qq install -y --no-install-recommends $$missing >/dev/null

# ---- library -----------------------------------------------------------------------------------
LIBRARY := $(BUILD)/lib/libcentroid.so
HEADERS := $(wildcard tensor/*.h tensor/*.def autograd/*.h nn/*.h)
.PHONY: install
$(LIBRARY): $(CORE)
	@mkdir -p $(@D)
	$(CXX) -shared $(LDFLAGS) $^ -o $@ $(LIBS_$(KIND))
install: $(LIBRARY)
	@mkdir -p $(DESTDIR)$(PREFIX)/lib/pkgconfig
	@for h in $(HEADERS); do install -D -m 644 $$h $(DESTDIR)$(PREFIX)/include/centroid/$$h; done
	install -m 755 $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/libcentroid.so
	@printf '%s\n' 'prefix=$(PREFIX)' 'Name: centroid' \
	  'Description: tensors, autograd and clustered attention' 'Version: $(VERSION)' \
	  'Cflags: -std=c++20 -I$${prefix}/include/centroid' \
	  'Libs: -L$${prefix}/lib -Wl,-rpath,$${prefix}/lib -lcentroid' \
	  > $(DESTDIR)$(PREFIX)/lib/pkgconfig/centroid.pc
	@echo "installed under $(DESTDIR)$(PREFIX)"

# ---- housekeeping --------------------------------------------------------------------------------
SOURCES = $(shell git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
.PHONY: format check-format tidy size clean help
format:
	@clang-format -i $(SOURCES)
check-format:
	@clang-format --dry-run --Werror $(SOURCES)
tidy:
	clang-tidy --quiet $(filter %.cpp,$(SOURCES)) -- $(CXXFLAGS) $(APP_FLAGS)
size:
	@count() { cat $$(git ls-files "$$@" | grep -E '\.(h|cpp|def|cu|cuh)$$') /dev/null | wc -l; }; failed=0; \
	part() { local name=$$1 budget=$$2; shift 2; local lines=$$(count "$$@"); \
	  printf '%-32s %6d lines (budget %d)\n' "$$name" $$lines $$budget; test $$lines -le $$budget || failed=1; }; \
	part 'core (tensor autograd nn)' 19100 tensor autograd nn; \
	part cuda 9500 cuda; \
	part 'speech (apps/audio apps/asr*)' 17500 apps/audio 'apps/asr*'; \
	part 'other programs' 8500 apps ':!apps/audio' ':!apps/asr*'; \
	printf '%-32s %6d lines\n' 'tests, but vgpu' $$(count tests ':!tests/vgpu'); \
	printf '%-32s %6d lines\n' tests/vgpu $$(count tests/vgpu); \
	exit $$failed
.PHONY: has-nvcc
has-nvcc:
	@echo $(if $(NEW_NVCC),yes,no)
clean:
	rm -rf build
help:
	@echo "make                 build the programs into build/bin"
	@echo "make demo            install what is missing, build, train a speech recogniser, show it"
	@echo "make recogniser      the commands of docs/asr.md: from recordings to a tuned recogniser"
	@echo "make test            install what is missing, build, run every test"
	@echo "make asan|tsan|fuzz  tests under sanitizers; parsers on mutated files"
	@echo "make test-cuda-emulated  the CUDA backend on a virtual device; test-cuda: on a GPU"
	@echo "make mutants         faults planted in device code (MUTANTS=20: a sample); resources,"
	@echo "                     check-resources: registers and traffic of kernels (cuda/resources.txt)"
	@echo "make bench           time kernels, attention and a training step; bench-peers: beside others"
	@echo "make report          run the experiments of docs/results.md (up to 16 h, resumable)"
	@echo "make install         headers, shared library and pkg-config under PREFIX=$(PREFIX)"
	@echo "make deps format check-format tidy size clean"
	@echo "variables: CONFIG=release|asan|tsan  ARCH=native|x86-64-v3|...  JOBS, PREFIX, DESTDIR,"
	@echo "           CUDA=0|1, CUDA_ARCHS, CUDA_HOME, NVCC"