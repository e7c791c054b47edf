#!/bin/sh
# venv.sh FOLDER: make a virtual environment there with the project and its tools in it.
set -eu
venv=$1

usable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

python=
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Python 3.11 or newer is needed, and none is on the PATH." >&2
    exit 1
fi

# Debian's python3 comes without ensurepip; the package python3-venv has it.
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    "$(dirname "$0")/packages.sh" python3-venv
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$python cannot make virtual environments: install the package python3-venv." >&2
    exit 1
fi

# The compiled datapath is faster with it, and as good without.
if command -v cargo >/dev/null 2>&1 && [ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ]; then
    "$(dirname "$0")/packages.sh" libipsec-mb-dev || true
fi

echo "Making the virtual environment $venv (once, about a minute)" >&2
"$python" -m venv --clear "$venv"
# If the compiled datapath cannot be built, an older one must not stay and stand for it.
rm -f tunnel/datapath/_native.*.so
log=$(mktemp)
# Root runs what is installed here: each file has the hash that is in the lock, those that build the
# project too, and nothing else is fetched.
if ! {
    "$venv/bin/python" -m pip install --disable-pip-version-check -q \
        --require-hashes --only-binary :all: -r tests/setup/requirements.lock &&
        "$venv/bin/python" -m pip install --disable-pip-version-check -q \
            --no-deps --no-build-isolation --no-index -e .
} >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
# As pip does for what it copies: else each start translates every module, where Python writes no
# bytecode (PYTHONDONTWRITEBYTECODE).
"$venv/bin/python" -m compileall -q tunnel crypto
if command -v cargo >/dev/null 2>&1 && ! ls tunnel/datapath/_native.*.so >/dev/null 2>&1; then
    echo "WARNING: the compiled datapath could not be built; why: $venv/bin/pip install -v -e ." >&2
fi
