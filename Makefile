# Each target does its own set-up from nothing: Linux x86-64, git, make, any Python 3.11 to 3.13, package registries.
# PYTHON=/path/to/python chooses the Python that .venv is made with.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint audit drill fuzz bench strings clean lock setup
.DELETE_ON_ERROR:

demo: $(STAMP)  ## screen the synthetic sample scans, end to end
	$(BIN)/nightread demo

test: $(STAMP)  ## the whole suite that needs neither root nor a browser
	$(BIN)/pytest -n 3 --dist worksteal -m "not browser"

lint: $(STAMP)  ## style, strict types, import contracts, what bandit finds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini
	$(BIN)/lint-imports
	$(BIN)/bandit -q -c pyproject.toml -r db producer workers webui deploy

audit: $(STAMP)  ## every locked dependency against the known vulnerabilities; fails where they cannot be asked for
	$(BIN)/pip-audit --strict --progress-spinner off --require-hashes --disable-pip -r requirements.lock -r deploy/locks/gpu.txt

drill: $(STAMP)  ## ten seeded nights of faults over the real parts, each audited
	$(BIN)/nightread drill --seeds 1-10 --jobs 2

SECONDS ?= 300
fuzz: $(STAMP)  ## mutated bytes through our header parsers (atheris) and through the decoder processes
	cd tests && ../$(BIN)/python -m fuzz headers --seconds $(SECONDS)
	cd tests && ../$(BIN)/python -m fuzz dicom --seconds $(SECONDS)
	cd tests && ../$(BIN)/python -m fuzz decoders --seconds $(SECONDS)

bench: $(STAMP)  ## ratios of two things measured in one run, into tests/bench/RESULTS.md; BENCH_SIZE=0.1 for a short look
	$(BIN)/python tests/bench/everything.py

strings: $(STAMP)  ## collect the pages' words into webui/strings.pot
	$(BIN)/python tests/renew_strings.py

setup: $(STAMP)  ## only the environment

$(STAMP): requirements.lock pyproject.toml deploy/make_venv.sh
	sh deploy/make_venv.sh $(VENV)
	touch $@

# PyPI alone, whatever index this machine uses; the other locks take their versions from the first one.
COMPILE := env -u PIP_FIND_LINKS -u PIP_EXTRA_INDEX_URL -u UV_FIND_LINKS -u UV_INDEX -u UV_EXTRA_INDEX_URL \
    uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
    --custom-compile-command "make lock"

lock:  ## write the locks anew (needs uv)
	$(COMPILE) pyproject.toml --extra optimize --extra sso --group dev -o requirements.lock
	echo "setuptools>=80" >build.in && cp requirements.lock constraints.in
	$(COMPILE) pyproject.toml build.in -c constraints.in --extra sso --no-annotate -o deploy/locks/front.txt
	$(COMPILE) pyproject.toml build.in -c constraints.in --extra worker --no-annotate -o deploy/locks/worker.txt
	$(COMPILE) pyproject.toml build.in -c constraints.in --extra gpu --no-annotate -o deploy/locks/gpu.txt
	$(COMPILE) --group browser -c constraints.in --no-annotate -o .ci/browser.lock
	$(COMPILE) pyproject.toml tests/bench/peers.in --extra train -c constraints.in --no-annotate -o tests/bench/peers.lock
	rm build.in constraints.in

clean:  ## everything that was made here; the home folder with its results stays
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
