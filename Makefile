# Centroid. `make help` lists the targets; `make` builds the programs and says what it found.
SHELL := /bin/bash
.DEFAULT_GOAL := all
CONFIG ?= release
ARCH ?= native
CUDA ?= 0
CXX := g++
BUILD := build/$(CONFIG)
BIN := $(if $(filter release,$(CONFIG)),build/bin,$(BUILD)/bin)

# ---- what this machine has ------------------------------------------------------------------
PKG = $(shell pkg-config --exists $(1) 2>/dev/null && echo 1)
HEADER = $(shell echo '\#include <$(1)>' | $(CXX) -E -x c++ - >/dev/null 2>&1 && echo 1)
comma := ,
MULTIARCH := $(shell $(CXX) -print-multiarch 2>/dev/null)
# The OpenMP build of OpenBLAS, by its folder: a plain -lopenblas may load the pthread build, whose
# own spinning thread pool fights with ours.
BLAS_DIR := $(firstword $(wildcard /usr/lib/$(MULTIARCH)/openblas-openmp))
BLAS_INC := $(if $(BLAS_DIR),-I/usr/include/$(MULTIARCH)/openblas-openmp)
BLAS_LIB := $(if $(BLAS_DIR),-L$(BLAS_DIR) -Wl$(comma)-rpath$(comma)$(BLAS_DIR)) -lopenblas
HAVE_SNDFILE := $(call PKG,sndfile)
HAVE_SAMPLERATE := $(call PKG,samplerate)
HAVE_KISSFFT := $(call PKG,kissfft-float)
HAVE_STB := $(call HEADER,stb/stb_image_write.h)
AUDIO_FLAGS := $(if $(HAVE_SNDFILE),-DCENTROID_HAVE_SNDFILE) \
  $(if $(HAVE_SAMPLERATE),-DCENTROID_HAVE_SAMPLERATE) \
  $(if $(HAVE_KISSFFT),-DCENTROID_HAVE_KISSFFT $(shell pkg-config --cflags kissfft-float)) \
  $(if $(HAVE_STB),-DCENTROID_HAVE_STB)
AUDIO_LIBS := $(if $(HAVE_SNDFILE),-lsndfile) $(if $(HAVE_SAMPLERATE),-lsamplerate) \
  $(if $(HAVE_KISSFFT),-lkissfft-float)

# ---- flags ----------------------------------------------------------------------------------
# -fno-math-errno and -fno-trapping-math let loops vectorise and change no result.
OPT_release := -O3 -DNDEBUG
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -DCENTROID_SYSTEM_ALLOC
OPT_tsan := -O1 -g -fsanitize=thread -DCENTROID_STD_THREADS -DCENTROID_SYSTEM_ALLOC
OPT_fuzz := $(OPT_asan)
OMP := $(if $(filter tsan,$(CONFIG)),,-fopenmp)
ARCH_FLAG := $(if $(filter native,$(ARCH)),-march=native,-march=$(ARCH))
CXXFLAGS := -std=c++20 $(OPT_$(CONFIG)) $(ARCH_FLAG) -fno-math-errno -fno-trapping-math \
  -fPIC -fno-semantic-interposition -Wall -Wextra -Wno-unknown-pragmas $(OMP) -I. $(BLAS_INC) \
  $(AUDIO_FLAGS) $(EXTRA_CXXFLAGS)
LDFLAGS := $(filter -fsanitize%,$(OPT_$(CONFIG))) $(OMP)
LDLIBS := $(BLAS_LIB) -lpthread

# ---- objects, by layer: a test binary links only its own layer and those below ---------------
obj = $(patsubst %.cpp,$(BUILD)/%.o,$(1))
TENSOR := $(call obj,$(wildcard tensor/*.cpp tensor/cpu/*.cpp tensor/cpu/attention/*.cpp) cuda/stub.cpp)
AUTOGRAD := $(call obj,$(wildcard autograd/*.cpp))
NN := $(call obj,$(wildcard nn/*.cpp nn/attention/*.cpp))
CORE := $(TENSOR) $(AUTOGRAD) $(NN)
COMMON := $(call obj,$(wildcard apps/common/*.cpp))
AUDIO := $(call obj,$(wildcard apps/audio/*.cpp))
APPS := copy asr bench attention-map
LIBRARY := $(BUILD)/lib/libcentroid.so

.PHONY: all help lib deps
all: $(APPS:%=$(BIN)/%) found
.PHONY: found
found:
	@echo "Centroid: $(CONFIG) build for $(ARCH) in $(BIN)"
	@echo "  BLAS            $(if $(BLAS_DIR),OpenBLAS$(comma) OpenMP build,whatever -lopenblas finds (make deps installs the OpenMP build))"
	@echo "  sound files     $(if $(HAVE_SNDFILE),libsndfile,left out: libsndfile not found)"
	@echo "  resampling      $(if $(HAVE_SAMPLERATE),libsamplerate,left out: libsamplerate not found)"
	@echo "  features        $(if $(HAVE_KISSFFT),kissfft,left out: kissfft not found)"
	@echo "  pictures        $(if $(HAVE_STB),stb,left out: stb not found)"
	@echo "  CUDA            left out: the CUDA backend is not part of this version"

# ---- tests: one program per layer -----------------------------------------------------------
TEST_LAYERS := tensor autograd nn apps
TESTS := $(TEST_LAYERS:%=$(BIN)/test_%)
test_obj = $(call obj,tests/main.cpp $(wildcard tests/$(1)/*.cpp))
# Tests are compiled for quick building: their own speed does not matter, the library's does.
$(BUILD)/tests/%.o: OPT_release := -O1
.PHONY: build-tests run-tests
build-tests: $(TESTS)
run-tests: build-tests $(APPS:%=$(BIN)/%)
	@for t in $(TESTS); do echo "== $$t"; CENTROID_BIN=$(BIN) $$t $(TEST_ARGS) || exit 1; done
$(BIN)/test_tensor: $(call test_obj,tensor) $(TENSOR)
$(BIN)/test_autograd: $(call test_obj,autograd) $(TENSOR) $(AUTOGRAD)
$(BIN)/test_nn: $(call test_obj,nn) $(CORE)
$(BIN)/test_apps: $(call test_obj,apps) $(COMMON) $(AUDIO) $(CORE)
$(TESTS):
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) $^ -o $@ $(AUDIO_LIBS) $(LDLIBS)

# ---- rules ----------------------------------------------------------------------------------
$(BUILD)/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c $< -o $@

$(BIN)/copy: $(call obj,$(wildcard apps/copy*.cpp)) $(COMMON) $(CORE)
$(BIN)/asr: $(call obj,$(wildcard apps/asr*.cpp)) $(COMMON) $(AUDIO) $(CORE)
$(BIN)/bench: $(call obj,$(wildcard apps/bench*.cpp)) $(COMMON) $(CORE)
$(BIN)/attention-map: $(call obj,$(wildcard apps/attention_map*.cpp)) $(COMMON) $(AUDIO) $(CORE)
$(APPS:%=$(BIN)/%):
	@mkdir -p $(@D)
	$(CXX) $(LDFLAGS) $^ -o $@ $(AUDIO_LIBS) $(LDLIBS)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
