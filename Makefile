# Two commands: `make lab` and `make test`. Both do all the set-up, also on a fresh Debian machine.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
# What is judged, and how: make conformance PROGRAMS=wireguard-go CONFORMANCE_ARGS=--quick
PROGRAMS ?= tunnel-wg wireguard-go
CONFORMANCE_ARGS ?=
FUZZ_SECONDS ?= 60
PYTHONS := 3.11 3.12 3.13 3.14
# Parts of the matrix, if not all of it: make matrix DATAPATHS=python OFF="gso all"
DATAPATHS ?= native python
OFF ?= none tso uso gso gro all
# Without cargo these do not matter; with it, the compiled datapath is built from them.
NATIVE := tunnel/datapath/native
CRATE := $(wildcard $(NATIVE)/Cargo.* $(NATIVE)/src/*.rs $(NATIVE)/src/*/*.rs \
	$(NATIVE)/ipsec-mb/*.* $(NATIVE)/ipsec-mb/src/*.*)

.PHONY: help lab test test-minimal test-pythons bench-check coverage matrix setup lock lint site pictures wheel wheels deb image test-packages fuzz soak crashes nonces reliability conformance doctor-matrix confs clean

help:
	@echo "make lab    two hosts and a real encrypted tunnel on this machine, explained"
	@echo "make test   the whole suite (as root: everything; else what user namespaces allow)"
	@echo "make test-minimal  make lab and make test in a minimal Debian, bootstrapped for it (as root)"
	@echo "make test-pythons  the unit tests on every other Python found ($(PYTHONS))"
	@echo "make bench-check BASE=commit  whether this tree is slower than that commit (20 min)"
	@echo "make coverage  the suite, and which lines and branches no test reaches"
	@echo "make matrix everything that carries packets, with both datapaths and each offload off (2 h)"
	@echo "make setup  the virtual environment in .venv, with the command tunnel"
	@echo "make lock   the packages of .venv and their hashes again, from pyproject.toml"
	@echo "make lint   style, types and format"
	@echo "make site   the documentation as a site in build/site, its links checked"
	@echo "make pictures  the pictures of terminals in docs/pictures, of real runs (as root)"
	@echo "make wheel  an sdist and a wheel in dist/, with the compiled datapath if cargo is here"
	@echo "make wheels  an sdist, and wheels for x86-64 and aarch64 with a manylinux tag, in dist/"
	@echo "make deb    the Debian package of this machine's architecture in dist/"
	@echo "make image  the recipe of an OCI image in dist/image, for docker build"
	@echo "make test-packages  the Debian package's life in Debian 12 and 13, and lintian (as root, 15 min)"
	@echo "make fuzz   hostile input for every entry point and both datapaths (70 min; FUZZ_SECONDS=60 of each)"
	@echo "make soak HOURS=8  memory, files, tasks and throughput while everything happens, as a chart;"
	@echo "            before that memory and pauses under each kind of load (1 h)"
	@echo "make crashes  500 kills at random moments, and whether the next command puts the machine right (20 min)"
	@echo "make nonces  a thousand engines killed under traffic, and whether a nonce comes twice (2 min)"
	@echo "make reliability  what restarts, faults of network and machine, and floods cost the traffic, beside"
	@echo "            wireguard-go, into docs/RELIABILITY.md (25 min; PARTS=\"restarts faults floods\")"
	@echo "make conformance  how well WireGuard programs keep the protocol's rules, as tables (12 min)"
	@echo "make doctor-matrix  every fault in every shape of conf, into docs/doctor.md (30 min)"
	@echo "make confs  what wg-quick makes of each conf of tests/confs/published, beside it (1 min)"
	@echo "make clean  remove what the above made"

lab: $(STAMP)
	@tests/setup/packages.sh --for base --for lab
	@$(PYTHON) -m tunnel lab $(LAB_ARGS)

# libatomic1: for the program that drives the browser.
SUITE_PACKAGES := --for base --for lab --for test libatomic1

test: $(STAMP)
	@tests/setup/packages.sh $(SUITE_PACKAGES)
	@$(PYTHON) -m tests.support.as_root -n 4 --dist worksteal $(PYTEST_ARGS)

# A fresh clone of HEAD on a machine that has nothing yet: finds what only this one happens to have.
test-minimal:
	@tests/setup/minimal_debian.sh

# The unit tests on every other Python that is found. One that is not found is no failure, unless
# TUNNEL_PYTHONS names it.
test-pythons: $(STAMP)
	@failed=; own=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $${TUNNEL_PYTHONS:-$(PYTHONS)}; do \
		if [ "$$version" = "$$own" ]; then \
			echo "== Python $$version: that of $(VENV), where make test runs"; \
		elif tests/setup/python.sh "$$version" >/dev/null; then \
			$(MAKE) --silent "$(VENV)-$$version/.installed" && echo "== Python $$version" && \
				"$(VENV)-$$version/bin/python" -m pytest -q -n 2 $(PYTEST_ARGS) tests/unit \
				|| failed="$$failed $$version"; \
		else \
			echo "== Python $$version: not found here"; \
			failed="$$failed$${TUNNEL_PYTHONS:+ $$version}"; \
		fi; \
	done; test -z "$$failed" || { echo "failed: Python$$failed" >&2; exit 1; }

# Each of them in turn, to the last: what failed is named at the end.
matrix: $(STAMP)
	@tests/setup/packages.sh $(SUITE_PACKAGES)
	@failed=; for datapath in $(DATAPATHS); do for off in $(OFF); do \
		echo "== datapath $$datapath, offloads off: $$off"; \
		TUNNEL_DATAPATH=$$datapath TUNNEL_OFFLOADS_OFF=$${off#none} \
			$(PYTHON) -m pytest -q -n 4 --dist worksteal $(PYTEST_ARGS) tests/integration tests/interop \
			|| failed="$$failed $$datapath/$$off"; \
	done; done; test -z "$$failed" || { echo "failed:$$failed" >&2; exit 1; }

# Slower by a half: branches are counted, in every program and daemon that a test starts, too, also
# of an ordinary user. A test that fails does not keep the figures back.
coverage: $(STAMP)
	@tests/setup/packages.sh $(SUITE_PACKAGES)
	@rm -rf .coverage && mkdir -m 1777 .coverage
	@$(VENV)/bin/coverage run -m pytest -n 4 --dist worksteal --timeout 300 $(PYTEST_ARGS); \
	failed=$$?; $(VENV)/bin/coverage combine -q && $(VENV)/bin/coverage report && exit $$failed

setup: $(STAMP)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# Newer versions, or another requirement in pyproject.toml: needs a package index, as setup does.
lock:
	@tests/setup/lock.sh

$(STAMP): pyproject.toml setup.py tests/setup/venv.sh tests/setup/requirements.lock $(CRATE)
	@tests/setup/venv.sh $(VENV)
	@touch $@

$(VENV)-%/.installed: pyproject.toml setup.py tests/setup/venv.sh tests/setup/requirements.lock tests/setup/python.sh $(CRATE)
	@PYTHON=$$(tests/setup/python.sh $*) tests/setup/venv.sh $(VENV)-$*
	@touch $@

site: $(STAMP)
	@$(PYTHON) -m packages.site $(SITE_ARGS)

# Of real runs, in docs/pictures.
pictures: $(STAMP)
	@tests/setup/packages.sh --for base --for lab
	@$(PYTHON) -m packages.pictures

# The wheel is built from the sdist, so nothing that lies about here gets into either of them.
wheel: $(STAMP)
	CARGO_TARGET_DIR=$(abspath $(NATIVE)/target) $(PYTHON) -m build

# For x86-64 and aarch64, tagged and checked by tools in an environment of their own.
AUDIT := build/audit
$(AUDIT)/.installed: $(STAMP) tests/setup/wheels.lock
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/python -m pip install --disable-pip-version-check -q --require-hashes --only-binary :all: \
		-r tests/setup/wheels.lock
	@touch $@

wheels: $(AUDIT)/.installed
	@$(PYTHON) -m packages.wheels --tools $(AUDIT)/bin $(WHEELS_ARGS)

# The Python packages inside are those of the lock, by hash. DEB_ARGS="--revision 2" for another one.
deb: $(STAMP)
	@$(PYTHON) -m packages.deb $(DEB_ARGS)

# What is in it is what this machine and .venv have; nothing is fetched.
image: $(STAMP)
	@tests/setup/packages.sh --for lab
	@$(PYTHON) -m packages.image $(IMAGE_ARGS)

# Each release is bootstrapped and booted; LIFE_ARGS="--suites trixie --roots FOLDER" keeps it for later.
test-packages: $(STAMP)
	@tests/setup/packages.sh --for base --for lab debootstrap lintian
	@rm -rf build/packages && $(PYTHON) -m packages.deb --output build/packages
	@lintian --fail-on error,warning build/packages/*.deb
	@$(PYTHON) -m tests.packages.life --deb build/packages/*.deb $(LIFE_ARGS)

# atheris guides inputs by the code that they reach. For some versions of Python it has no wheel: then
# inputs are random. With the flags that cargo-fuzz sets itself, stable Rust guides those of its
# targets, too: only a sanitizer needs nightly.
LED := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Clink-dead-code -Cdebug-assertions -Ccodegen-units=1

fuzz: $(STAMP)
	@$(PYTHON) -m pip install --disable-pip-version-check -q --no-deps --require-hashes --only-binary :all: \
		-r tests/setup/fuzz.lock || echo "no atheris: inputs are made by chance"
	$(PYTHON) -m tests.support.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)
	cd $(NATIVE) && FUZZ_SECONDS=$$(($(FUZZ_SECONDS) * 10)) cargo run --locked --release --example fuzz
	cd $(NATIVE)/fuzz && host=$$(rustc --print host-tuple) && for target in split open coalesce handshake; do \
		RUSTFLAGS="$(LED)" cargo run --release --target "$$host" --bin $$target -- \
			-max_total_time=$(FUZZ_SECONDS) || exit 1; done
	TUNNEL_FUZZ_SECONDS=$$(($(FUZZ_SECONDS) * 10)) $(PYTHON) -m pytest tests/property/test_datapath_twins.py \
		-k long --timeout $$(($(FUZZ_SECONDS) * 10 + 300))

# What is compared, and how often: make bench-check BASE=main BENCH_ARGS="--rows tcp,idle --rounds 7"
bench-check: $(STAMP)
	@test -n "$(BASE)" || { echo "what to compare with? make bench-check BASE=main" >&2; exit 2; }
	@tests/setup/packages.sh --for base --for lab --for test
	@$(PYTHON) -m tests.support.bench_check $(BASE) $(BENCH_ARGS)

# How long everything at once goes on; the chart is soak.svg.
HOURS ?= 0.5

soak: $(STAMP)
	@tests/setup/packages.sh --for base --for lab --for test
	$(PYTHON) -m tests.soak.traffic --datapath native
	$(PYTHON) -m tests.soak.traffic --datapath python
	$(PYTHON) -m tests.soak.changes
	$(PYTHON) -m tests.soak.routes
	$(PYTHON) -m tests.soak.hours --hours $(HOURS) --chart soak.svg

crashes: $(STAMP)
	@tests/setup/packages.sh --for base --for lab --for test
	$(PYTHON) -m tests.soak.crashes --trials 500

nonces: $(STAMP)
	TUNNEL_CRASHES=500 $(PYTHON) -m pytest tests/unit/engine/test_crashes.py

conformance: $(STAMP)
	@tests/setup/packages.sh --for base --for lab --for test
	$(PYTHON) -m tests.conformance $(PROGRAMS:%=--program %) $(CONFORMANCE_ARGS)

reliability: $(STAMP)
	@tests/setup/packages.sh --for base --for lab --for test
	$(PYTHON) -m tests.support.reliability_page $(PARTS)

doctor-matrix: $(STAMP)
	@tests/setup/packages.sh --for base --for lab --for test
	$(PYTHON) -m tests.support.doctor_matrix

confs: $(STAMP)
	@tests/setup/packages.sh --for base --for lab --for test
	$(PYTHON) -m tests.support.published

clean:
	rm -rf $(VENV) $(VENV)-* build dist $(NATIVE)/target $(NATIVE)/fuzz/target tunnel/datapath/*.so *.egg-info soak.svg .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find crypto tunnel tests examples -name __pycache__ -type d -exec rm -rf {} +
