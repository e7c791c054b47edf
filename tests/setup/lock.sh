#!/bin/sh
# lock.sh: write requirements.lock, the exact packages, with hashes, that venv.sh installs: those of
# pyproject.toml with the page (extra web), the tools (extra dev) and what builds the project, for
# every Python from 3.11 on.
# Needs uv, which it installs in a folder of its own. An index other than PyPI: UV_DEFAULT_INDEX.
set -eu
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q uv
"$folder/venv/bin/python" - >"$folder/build.in" <<'END'
import tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\n")
END
"$folder/venv/bin/uv" pip compile -q --universal --python-version 3.11 --generate-hashes \
    --extra dev --extra web --no-header --no-annotate \
    --output-file "$folder/lock" pyproject.toml "$folder/build.in"
{
    echo "# What tests/setup/venv.sh installs, and nothing else: made by \`make lock\` from pyproject.toml."
    cat "$folder/lock"
} >tests/setup/requirements.lock
