# The two commands that matter: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# fails where processes or temporary files are left behind
CLEAN := $(BIN)/python autograder/leash.py --clean

.PHONY: demo test levels book browser chromium proxy lab build check lint lock clean

demo: $(VENV)/run.stamp  ## the main job, offline: build, a class of six, grade, export, leaderboard
	$(BIN)/tito demo

test: $(VENV)/dev.stamp  ## all tests, two at a time; notebooks, which train, with one thread each
	$(CLEAN) $(BIN)/python -m pytest -n 2 --dist loadgroup tests
	OPENBLAS_NUM_THREADS=1 TINYTORCH_THREADS=1 $(CLEAN) $(BIN)/python -m pytest -q -n 2 --dist loadfile -p tests.sockets --nbval-lax source

levels: $(VENV)/dev.stamp  ## a short class at every sandbox level, without bwrap, and as an ordinary user, in a folder with an odd name
	$(CLEAN) $(BIN)/python -m tests.levels

book: $(VENV)/book.stamp  ## the handbook, offline, into build/book, unless it is current; every command in it is executed
	$(CLEAN) $(BIN)/python course/_ext/handbook/build.py $(BOOK)

browser: $(VENV)/browser.stamp $(VENV)/hub.stamp chromium proxy book  ## both roads in a real browser; pictures in tests/browser/shots
	$(CLEAN) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/browser

chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null || $(SUDO) sh -c "apt-get update -q && \
		apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core" || \
		{ echo "make: there is no chromium, and apt-get could not install it: install one" >&2; exit 1; }

proxy:  # JupyterHub's; without it the test of the hub skips
	@command -v configurable-http-proxy >/dev/null || $(SUDO) sh -c "apt-get update -q && \
		apt-get install -y -q --no-install-recommends node-configurable-http-proxy" || \
		echo "make: there is no configurable-http-proxy, and apt-get could not install it: JupyterHub is not tested" >&2
SUDO := $(shell [ "$$(id -u)" -eq 0 ] || echo sudo)

lab: $(VENV)/run.stamp  ## JupyterLab on a student workspace (./workspace)
	$(BIN)/tito lab

build: $(VENV)/run.stamp  ## lessons -> source/, tinytorch/, release/
	$(BIN)/tito build

check: $(VENV)/dev.stamp  ## what CI checks beside the tests: style, types, who imports whom, built files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check autograder tito tests benchmarks course
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --follow-imports silent tito  # students have Windows and macOS, too
	$(BIN)/mypy --platform darwin --follow-imports silent tito
	$(BIN)/lint-imports
	$(BIN)/tito build --check

lint: check

lock: $(VENV)/dev.stamp  ## pin anew what pyproject.toml asks for, for Linux, macOS and Windows at once
	$(LOCK) -o requirements/build.txt requirements/build.in
	$(LOCK) -o requirements/uv.txt requirements/uv.in
	$(LOCK) -o requirements/student.txt pyproject.toml
	$(LOCK) --extra instructor -c requirements/student.txt -o requirements/run.txt pyproject.toml
	$(LOCK) --extra dev -c requirements/run.txt -c requirements/uv.txt -o requirements/dev.txt pyproject.toml
	$(LOCK) --extra book -c requirements/run.txt -c requirements/dev.txt -o requirements/book.txt pyproject.toml
	$(LOCK) --extra browser -c requirements/run.txt -c requirements/book.txt -o requirements/browser.txt pyproject.toml
	$(LOCK) --extra instructor --extra hub -c requirements/run.txt -c requirements/browser.txt -o requirements/hub.txt pyproject.toml
LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header

# requirements/*.txt pin every package with its hashes; install.py decides by content what there is to do, and
# makes .venv anew where PYTHON is named and is another one than .venv's
$(VENV)/%.stamp: FORCE
	@$(PYTHON) requirements/install.py $* $(if $(filter file default undefined,$(origin PYTHON)),,--asked)
$(VENV)/dev.stamp $(VENV)/book.stamp $(VENV)/hub.stamp: $(VENV)/run.stamp
$(VENV)/browser.stamp: $(VENV)/dev.stamp $(VENV)/book.stamp
FORCE:
.NOTPARALLEL:

clean:
	rm -rf $(VENV) $(VENV).old demo workspace build dist *.egg-info
