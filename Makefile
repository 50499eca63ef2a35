# Everything happens in .venv, which the first command makes. A second run installs nothing.
VENV := .venv
BIN := $(VENV)/bin
# Any Python from 3.10 on; name another with `make demo PYTHON=python3.12`
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && echo $$p && break; done)
NBS ?=
LABFLAGS ?=

# A .venv that was copied or moved here, or whose Python is gone, is made again.
ifneq ($(wildcard $(VENV)/.*.ok),)
ifneq ($(shell cat $(VENV)/.home 2>/dev/null; $(BIN)/python -c '' 2>&1),$(CURDIR))
$(shell rm -f $(VENV)/.*.ok)
endif
endif

.PHONY: help demo test lab export notebooks fresh readme hooks doctor clean

help: ## Show this list
	@echo 'make demo is the place to start. All commands:'
	@sed -n 's/^\([a-z]*\):.*## /  make \1@/p' Makefile | awk -F@ '{printf "%-17s %s\n", $$1, $$2}'

demo: $(VENV)/.demo.ok ## Make clips, train a small VideoMamba on them, look at what it learned
	$(BIN)/videomamba demo

test: $(VENV)/.dev.ok ## Check style, run every notebook and all tests
	$(BIN)/python -m videomamba_nb.doctor
	$(BIN)/ruff check .
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE $(BIN)/nbdev_test --timing
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -m 'not notebooks' -n 2 --dist loadfile --durations=12

lab: $(VENV)/.dev.ok ## Open the notebooks in JupyterLab, at the first page
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(LABFLAGS) nbs/index.ipynb

export: $(VENV)/.dev.ok ## Write the library from the notebooks
	$(BIN)/nbdev_export
	$(BIN)/python dev/export_c.py

notebooks: $(VENV)/.dev.ok ## Run the notebooks and keep their outputs; some of them with NBS='11 21'
	$(BIN)/python dev/export_c.py
	$(BIN)/python dev/run_nbs.py $(NBS)
	$(BIN)/nbdev_export
	$(BIN)/python dev/make_readme.py

readme: $(VENV)/.dev.ok ## Write README.md from nbs/index.ipynb
	$(BIN)/python dev/make_readme.py

fresh: $(VENV)/.dev.ok ## Run the notebooks and compare with their stored outputs
	$(BIN)/python dev/run_nbs.py --check $(NBS)

doctor: $(VENV)/.demo.ok ## Say what is installed, what is missing and how to get it
	$(BIN)/python -m videomamba_nb.doctor

hooks: ## Let git merge notebooks cell by cell, and check each commit (this clone only)
	git config --local include.path ../.gitconfig

clean: ## Remove .venv and all that was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis nbs/.hypothesis

# ---- set-up ----------------------------------------------------------------------------------------------------------
# Each stamp is written when its installation ended well. `.installing` tells of one that did not: we start afresh then.

$(VENV)/.python.ok:
	@test -n '$(PYTHON)' || { echo 'No Python 3.10 or newer found: install one, or name it with PYTHON=...'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else \
	    "Python 3.10 or newer is needed, and $(PYTHON) is " + sys.version.split()[0] + ": name another with PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	@printf '%s' '$(CURDIR)' > $(VENV)/.home
	@touch $@

$(VENV)/.%.ok: settings.ini setup.py constraints.txt | $(VENV)/.python.ok
	@if test -e $(VENV)/.installing; then echo 'The last installation was not finished: starting afresh'; \
	    rm -f $(VENV)/.*.ok; $(MAKE) --no-print-directory $(VENV)/.python.ok; fi
	@touch $(VENV)/.installing
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@rm $(VENV)/.installing
	@touch $@ $(if $(filter dev,$*),$(VENV)/.demo.ok)
