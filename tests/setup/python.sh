#!/bin/sh
# python.sh VERSION: print the path of an interpreter of that version, such as 3.12; fail if there is
# none. Looks on the PATH and where pyenv keeps its own, whose shims only work for what it selects.
set -eu
version=$1

candidates() {
    printf '%s\n' "$PATH" | tr : '\n' | sed "s|\$|/python$version|"
    for root in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv"; do
        ls -d "$root/versions/$version".*/bin/python"$version" 2>/dev/null || true
    done
}

is_it() {
    "$1" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" >/dev/null 2>&1
}

candidates | while IFS= read -r candidate; do
    if [ -x "$candidate" ] && is_it "$candidate"; then
        printf '%s\n' "$candidate"
        exit 0
    fi
done | grep .
