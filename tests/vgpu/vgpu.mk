# The virtual CUDA device and its tests. The includer gives NVCC, CUDA_HOME and BUILD, and may give
# BLAS_INC and BLAS_LIB (how to find OpenBLAS).
#
# $(VGPU_LIB) stands in for -lcudart and -lcublas; it needs $(BLAS_LIB) behind it. Device code for it is
# compiled with $(NVCC) $(VGPU_NVCCFLAGS).
VGPU_DIR := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
VGPU_OUT := $(BUILD)/vgpu
VGPU_LIB := $(VGPU_OUT)/libvgpu.a
BLAS_LIB ?= -lopenblas

# The interpreter computes 32 lanes at a time: it wants vector instructions whatever the machine.
VGPU_CXXFLAGS := -std=c++20 -O3 -g1 -mavx2 -mfma -mbmi2 -mpopcnt -mf16c -fno-math-errno \
  -fno-trapping-math -Wall -Wextra \
  -isystem $(CUDA_HOME)/include $(BLAS_INC) -DVGPU_SOURCES='"$(VGPU_DIR)"'
VGPU_TEST_CXXFLAGS := $(VGPU_CXXFLAGS:-O3=-O1)
# PTX only, uncompressed, with source lines: the device reads it out of the objects. Older PTX takes
# the branches of device code that newer PTX leaves out.
VGPU_ARCHS ?= 75 80
VGPU_NVCCFLAGS := -std=c++20 --extended-lambda -lineinfo --no-compress -Werror all-warnings \
  -Xcompiler -Wall,-Wextra $(foreach a,$(VGPU_ARCHS),-gencode arch=compute_$(a),code=compute_$(a))

VGPU_OBJECTS := $(patsubst $(VGPU_DIR)/%.cpp,$(VGPU_OUT)/%.o,\
  $(filter-out $(VGPU_DIR)/test_%.cpp $(VGPU_DIR)/scenarios_%.cpp,$(wildcard $(VGPU_DIR)/*.cpp)))
VGPU_CASES := $(patsubst $(VGPU_DIR)/%.cu,$(VGPU_OUT)/%.cu.o,$(wildcard $(VGPU_DIR)/*.cu)) \
  $(patsubst $(VGPU_DIR)/%.cpp,$(VGPU_OUT)/%.o,$(wildcard $(VGPU_DIR)/scenarios_*.cpp))
VGPU_OPCODES := $(patsubst $(VGPU_DIR)/%.cpp,$(VGPU_OUT)/%.o,\
  $(wildcard $(VGPU_DIR)/test_opcodes*.cpp) $(VGPU_DIR)/test_main.cpp)
VGPU_TESTS := $(VGPU_OUT)/test_opcodes $(VGPU_OUT)/test_vgpu

$(VGPU_OUT)/test_%.o $(VGPU_OUT)/scenarios_%.o: VGPU_CXXFLAGS := $(VGPU_TEST_CXXFLAGS)

$(VGPU_OUT)/%.o: $(VGPU_DIR)/%.cpp
	@mkdir -p $(@D)
	@echo "  c++  $<"
	@$(CXX) $(VGPU_CXXFLAGS) -MMD -MP -c $< -o $@

$(VGPU_OUT)/%.cu.o: $(VGPU_DIR)/%.cu
	@mkdir -p $(@D)
	@echo "  nvcc $<"
	@$(NVCC) $(VGPU_NVCCFLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@

$(VGPU_LIB): $(VGPU_OBJECTS)
	@rm -f $@
	@ar rcs $@ $^

$(VGPU_OUT)/test_opcodes: $(VGPU_OPCODES) $(VGPU_LIB)
	@echo "  link $@"
	@$(CXX) $^ $(BLAS_LIB) -lpthread -o $@

$(VGPU_OUT)/test_vgpu: $(VGPU_OUT)/test_vgpu.o $(VGPU_CASES) $(VGPU_LIB)
	@echo "  link $@"
	@$(CXX) $^ $(BLAS_LIB) -lpthread -o $@

-include $(wildcard $(VGPU_OUT)/*.d)

.PHONY: vgpu-tests
vgpu-tests: $(VGPU_TESTS)
