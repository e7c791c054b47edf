#!/bin/sh
# bootstrap.sh FOLDER PACKAGE,…: bootstrap a minimal Debian with these packages into FOLDER, as root. Its apt
# reaches the archives as that of this machine does, whose mirror it uses.
#
# SUITE   the Debian release (bookworm)
# MIRROR  where its packages are (the mirror in this machine's apt configuration)
set -eu

SUITE=${SUITE:-bookworm}
folder=$1 packages=$2

# Main archives in this machine's apt configuration, as lines "URI CODENAME COMPONENT".
archives() {
    apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        grep -E " $1(-updates|-security)? main\$" | sort -u
}

# A mirror of one release has the others, too.
mirror=${MIRROR:-$({ archives "$SUITE"; archives '[a-z]+'; } |
    sed -nE 's/ [a-z]+ main$//p' | head -n 1)}
if [ -z "$mirror" ]; then
    echo "apt knows no mirror of Debian here: set MIRROR=http://…" >&2
    exit 1
fi
echo "Bootstrapping a minimal $SUITE into $folder" >&2
# debootstrap's own log is in the folder; what matters of it comes on stderr.
log=$(mktemp)
debootstrap --variant=minbase --include="$packages" "$SUITE" "$folder" "$mirror" >"$log" ||
    { tail -n 20 "$log" >&2; rm -f "$log"; exit 1; }
rm -f "$log"
{ archives "$SUITE"; echo "$mirror $SUITE main"; } | sort -u | sed 's/^/deb /' \
    >"$folder/etc/apt/sources.list"
apt-config dump | grep -iE '^Acquire::(https?::|Check-|Retries |.*proxy)' \
    >"$folder/etc/apt/apt.conf.d/90acquire" || true
