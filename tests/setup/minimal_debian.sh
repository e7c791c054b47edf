#!/bin/sh
# minimal_debian.sh [COMMAND]: bootstrap a minimal Debian (Python, make and git, and no more) into a
# temporary folder, put a fresh clone of HEAD there, and run COMMAND in the clone as root: by default
# `make lab` and `make test`. Needs root. The folder is removed at the end; its mounts are in a mount
# namespace of this script, and go with it whatever happens.
#
# ACCOUNT  run COMMAND as this ordinary user, made for it (root); the Debian packages are installed
#          before, because only root can
# SUITE    the Debian release (bookworm)
# MIRROR   where its packages are (the mirror in this machine's apt configuration)
# TMPDIR   where the temporary folder is made; it needs 2 GB (/tmp)
set -eu

HERE=$(cd "$(dirname "$0")" && pwd)
PROJECT=$(cd "$HERE/../.." && pwd)
VARIABLES="CI TERM PYTEST_ARGS http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY"

main() {
    if [ "$(id -u)" != 0 ]; then
        echo "minimal_debian.sh needs root: sudo make test-minimal" >&2
        exit 1
    fi
    "$HERE/packages.sh" debootstrap
    folder=$(mktemp -d "${TMPDIR:-/tmp}/tunnel-minimal-XXXXXX")
    child=
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    git clone -q --no-hardlinks "$PROJECT" "$folder/clone"
    git -C "$folder/clone" checkout -q --detach "$(git -C "$PROJECT" rev-parse HEAD)"
    unshare --mount --propagation private --pid --fork --kill-child \
        "$HERE/minimal_debian.sh" --inside "$folder" "${1:-make lab && make test}" &
    child=$!
    # A shell looks at a signal only between commands, but always while it waits.
    wait "$child"
    child=
}

clean_up() {
    if [ -n "$child" ]; then
        # unshare ignores gentler signals; all that runs in the PID namespace ends with it.
        kill -KILL "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    rm -rf --one-file-system "$folder"
}

bootstrap() {
    "$HERE/bootstrap.sh" "$root" python3,python3-venv,make,git
    # How this machine reaches the registry of Python packages.
    for file in /etc/pip.conf /etc/resolv.conf "${PIP_CERT:-}"; do
        if [ -f "$file" ]; then
            mkdir -p "$root$(dirname "$file")"
            cp -L "$file" "$root$file"
        fi
    done
}

# What a container has: its own /proc, /run, /tmp and /dev, and of the devices only the harmless
# ones and /dev/net/tun.
mount_all() {
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm" "$root/run/lock"
    for device in null zero full random urandom tty; do
        : >"$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    done
    # Open to all, as udev makes it; the machine's own may not be.
    mknod -m 666 "$root/dev/net/tun" c 10 200
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts "$root/dev/pts"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s fd/0 "$root/dev/stdin"
    ln -s fd/1 "$root/dev/stdout"
    ln -s fd/2 "$root/dev/stderr"
}

inside() {
    folder=$1 command=$2 root=$1/root
    bootstrap
    mount_all
    account=${ACCOUNT:-root}
    home=/root
    if [ "$account" != root ]; then
        home=/home/$account
        chroot "$root" useradd --create-home "$account"
    fi
    mv "$folder/clone" "$root$home/tunnel"
    set -- HOME="$home" LOGNAME="$account" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
    for name in $VARIABLES $(env | sed -n 's/^\(PIP_[A-Z_]*\)=.*/\1/p'); do
        eval "value=\${$name-}"
        [ -z "$value" ] || set -- "$@" "$name=$value"
    done
    if [ "$account" != root ]; then
        env -i "$@" chroot "$root" "$home/tunnel/tests/setup/packages.sh" \
            --for base --for lab --for test
        chroot "$root" chown -R "$account:" "$home/tunnel"
    fi
    # Not only chroot: who enters a mount namespace made in there would be at its root, outside.
    cd "$root"
    mkdir .machine
    pivot_root . .machine
    exec env -i "$@" sh -ec '
        umount -l /.machine
        exec chroot --userspec="$1:$1" / sh -c "cd && cd tunnel && eval \"\$1\"" sh "$2"
    ' sh "$account" "$command"
}

if [ "${1:-}" = --inside ]; then
    inside "$2" "$3"
else
    main "$@"
fi
