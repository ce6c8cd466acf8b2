# `make demo` shows every stage in two minutes, `make study` runs the default study, `make study STUDY=ablation` that of
# workflow/studies/ablation.yaml, `make test` the tests, `make docs` builds the documentation, `make install` the environment
# alone. Several studies are laid over each other in turn: make study STUDY="omnimedvqa ablation". Each command sets up what
# it needs in .venv.
# On Linux without a GPU, the smaller CPU build of torch is taken where pip is pointed at one (see the README).
PYTHON ?= python3
CORES ?= 2
STUDY ?= phantoms
SOURCE ?=
TARGET :=
WHICH ?= not slow and not conda and not slurm
VENV := .venv
BIN := $(VENV)/bin

FILES := $(patsubst %,workflow/studies/%.yaml,$(filter-out phantoms,$(STUDY)))
# SOURCE as it was typed, $ and all: in quotes for YAML, where a ' is doubled, and these in quotes for the shell.
YAML := data={source: '$(subst ','',$(value SOURCE))'}
# Snakemake takes words after these for more of their values: a target stands before them.
CONFIG := $(if $(FILES),--configfile $(FILES)) $(if $(value SOURCE),--config '$(subst ','\'',$(YAML))')
UNKNOWN := $(filter-out $(wildcard $(FILES)),$(FILES))
NAMED := $(if $(wildcard $(FILES)),$(shell grep -ls '^study:' $(wildcard $(FILES))))

# A waiting thread must not spin: two processes share two cores.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: install study check-study demo test test-all lint docs clean

install: $(VENV)/.ready

study: check-study $(VENV)/.ready
	PATH="$$PWD/$(BIN):$$PATH" snakemake $(TARGET) --cores $(CORES) --rerun-incomplete $(CONFIG)

check-study:
	$(if $(UNKNOWN),$(error there is no $(UNKNOWN); STUDY is phantoms or one of $(sort $(basename $(notdir $(wildcard workflow/studies/*.yaml))))))
	$(if $(value SOURCE),$(if $(NAMED),,$(error SOURCE needs a STUDY with a name of its own, such as STUDY=mini: its results would be mixed with those of the phantoms in results/phantoms)))
	@:

demo: $(VENV)/.ready
	PATH="$$PWD/$(BIN):$$PATH" OMP_NUM_THREADS=1 snakemake --cores $(CORES) --rerun-incomplete --quiet rules host \
		--configfile workflow/studies/demo.yaml
	@cat workflow/studies/demo.txt

# A file's tests run in one process, in the order of tests/conftest.py; one process more than cores, since those of Slurm
# mostly wait for it. WHICH: pytest's expression of markers.
test: $(VENV)/.ready
	PATH="$$PWD/$(BIN):$$PATH" OMP_NUM_THREADS=1 pytest tests -n $$(($(CORES) + 1)) --dist loadfile --no-loadscope-reorder \
		-rs -m "$(WHICH)"

# All tests: those of conda need a package registry, those of Slurm need root and its daemons (see tests/workflow).
test-all: WHICH :=
test-all: test

lint: $(VENV)/.ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile workflow
	PATH="$$PWD/$(BIN):$$PATH" snakemake --lint

# Without a network; a broken link is an error.
docs: $(VENV)/.ready
	PATH="$$PWD/$(BIN):$$PATH" python scripts/write_reference.py
	$(BIN)/mkdocs build --strict --quiet

$(VENV)/.ready: envs/local.txt envs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r envs/local.txt -c envs/constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps torchattacks==3.5.1 # its metadata asks for torchvision, which it does not need
	touch $@

# The environment and caches; never results, nor .snakemake, which records how they were made.
clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find scripts tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
