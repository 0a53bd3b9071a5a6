# Each target works on a fresh clone: it makes .venv (unless a virtual environment is active) and installs what it needs.
#   make demo    a detection loop on the synthetic camera, without GPU, camera or network
#   make test    the whole test suite
#   make lint    ruff, clang-format, mypy, the architecture test
#   make bench   the benchmarks; the results go to benchmarks/results
#   make gpu     on a machine with CUDA, without network: build, CUDA tests, CUDA benchmarks
#   make xavier  compile the CUDA kernels for sm_72 (Jetson Xavier)
#   make trt-headers DETRX_TENSORRT_ROOTS="A;B"  the TensorRT adapters against the headers in A/include, B/include
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= $(if $(VIRTUAL_ENV),$(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin
TEST_FLAGS ?= -n 2
TODAY := $(shell date +%Y-%m-%d)
NATIVE := $(shell find csrc cmake -type f) CMakeLists.txt pyproject.toml
GPU_ARCHITECTURE ?= native

.PHONY: demo test lint format bench gpu xavier trt-headers clean

demo: $(VENV)/.detrx-cpu
	$(BIN)/detrx demo

test: $(VENV)/.detrx-dev
	$(BIN)/python -m pytest $(TEST_FLAGS)

lint: $(VENV)/.detrx-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(VENV)/.detrx-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' | xargs $(BIN)/clang-format -i

bench: $(VENV)/.detrx-dev
	@mkdir -p benchmarks/results
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only --benchmark-json=benchmarks/results/$(TODAY)-cpu.json

# On the Python that already holds torch, numpy, pybind11, scikit-build-core, CMake, ninja, pytest and pytest-benchmark.
# The kernels are built for the device that is here and no other. Tests and benchmarks read what has just been installed.
gpu:
	$(PYTHON) -m pip install --no-build-isolation --no-deps -C cmake.define.DETRX_CUDA=ON \
	  -C cmake.define.CMAKE_CUDA_ARCHITECTURES=$(GPU_ARCHITECTURE) $(PIP_FLAGS) .
	DETRX_REQUIRE=cuda $(PYTHON) -m pytest tests --only-needs cuda
	$(PYTHON) scripts/sanitize.py
	@mkdir -p benchmarks/results
	DETRX_REQUIRE=cuda $(PYTHON) -m pytest benchmarks --only-needs cuda -s --benchmark-enable --benchmark-only \
	  --benchmark-json=benchmarks/results/$(TODAY)-$$($(PYTHON) -c "import torch; print(torch.cuda.get_device_name().replace(' ', '-').lower())").json

# Code for Jetson Xavier, which nvcc 13 no longer makes, by NVRTC 11.8 from PyPI: no nvcc, no GPU. See docs/decisions/0018.
xavier:
	$(PYTHON) scripts/xavier.py build/xavier

# Compiles the TensorRT runtime against every version of the headers that is named, and runs it over a TensorRT of ours.
trt-headers: $(VENV)/.detrx-dev
	DETRX_REQUIRE=tensorrt-headers $(BIN)/python -m pytest tests/trt

clean:
	rm -rf build dist .venv .nox .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q "pip>=21.3"  # the first that installs -e without setup.py

$(VENV)/.detrx-cpu: $(VENV)/bin/python $(NATIVE)
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[cpu]"
	@touch $@

$(VENV)/.detrx-dev: $(VENV)/bin/python $(NATIVE)
	$(BIN)/python -m pip install --disable-pip-version-check -e ".[dev]"
	@touch $@ $(VENV)/.detrx-cpu
