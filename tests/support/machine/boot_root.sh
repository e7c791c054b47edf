#!/bin/sh
# boot_root.sh ROOT: become the systemd of the Debian in the folder ROOT, as PID 1 of the namespaces this is
# started in. Its devices are those of a container; /run, /tmp and the cgroup tree are its own.
set -eu
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# Of the kernel's settings, those of the network are its own; with the others it has to live.
for part in fs kernel vm; do
    mount --bind -o ro "/proc/sys/$part" "$root/proc/sys/$part"
done
ln -sf /dev/null "$root/etc/systemd/system/systemd-sysctl.service"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/net" "$root/dev/shm"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mknod -m 666 "$root/dev/net/tun" c 10 200
ln -s /proc/self/fd "$root/dev/fd"
cd "$root"
mkdir -p run/machine
pivot_root . run/machine
umount -l /run/machine
# As systemd does on a machine: what it mounts for a unit, such as credentials, is seen in there, too.
mount --make-rshared /
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lab \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal
