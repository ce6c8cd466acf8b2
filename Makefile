# `make demo` shows every stage in two minutes, `make study` runs the default study, `make test` the tests, `make docs` builds
# the documentation; all set up what they need and re-use what is there.
# On Linux without a GPU, the smaller CPU build of torch is taken where pip is pointed at one (see the README).
PYTHON ?= python3
CORES ?= 2
STUDY ?= phantoms
SOURCE ?=
VENV := .venv
BIN := $(VENV)/bin

CONFIG := $(if $(filter-out phantoms,$(STUDY)),--configfile workflow/studies/$(STUDY).yaml)
CONFIG += $(if $(SOURCE),--config 'data={source: "$(SOURCE)"}')

# A waiting thread must not spin: two processes share two cores.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: study demo ablation test lint docs clean

study: $(VENV)/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) --rerun-incomplete $(CONFIG)

demo: $(VENV)/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 snakemake --cores $(CORES) --rerun-incomplete --quiet rules host \
		--configfile workflow/studies/demo.yaml
	@cat workflow/studies/demo.txt

ablation: $(VENV)/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) --rerun-incomplete $(CONFIG) ablation

test: $(VENV)/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 pytest tests

lint: $(VENV)/.ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile workflow
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint

# Without a network; a broken link is an error.
docs: $(VENV)/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" python scripts/write_reference.py
	$(BIN)/mkdocs build --strict --quiet

$(VENV)/.ready: envs/local.txt envs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r envs/local.txt -c envs/constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps torchattacks==3.5.1 # its metadata asks for torchvision, which it does not need
	touch $@

clean:
	rm -rf $(VENV) results
