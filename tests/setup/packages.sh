#!/bin/sh
# packages.sh [--for GROUP]… [PACKAGE…]: install the Debian packages that are missing; --for names
# those of a group in the file `programs` beside this. As an ordinary user, or where there is no
# apt-get, say what is missing and go on: what cannot run will say so itself.
set -eu

command -v dpkg-query >/dev/null 2>&1 || exit 0

wanted=
while [ $# -gt 0 ]; do
    if [ "$1" = --for ]; then
        shift
        packages=$(sed -n "s/^$1 [^ ]* //p" "$(dirname "$0")/programs" | sort -u)
        [ -n "$packages" ] || { echo "packages.sh: no program is for '$1'" >&2; exit 2; }
        wanted="$wanted $packages"
    else
        wanted="$wanted $1"
    fi
    shift
done

missing=
for package in $wanted; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "Debian packages that are missing here (only root can install them):$missing" >&2
    exit 0
fi

# A server that a package brings must not be started by its installation: tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi

log=$(mktemp)
echo "Installing Debian packages:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
known=
if apt-get update -q >"$log" 2>&1; then
    for package in $missing; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            known="$known $package"
        else
            echo "Not to be had here; what needs it is skipped: $package" >&2
        fi
    done
else
    known=$missing
fi
if [ -n "$known" ] && ! apt-get install -y -q --no-install-recommends $known >>"$log" 2>&1; then
    cat "$log" >&2
    echo "apt-get could not install:$known" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
