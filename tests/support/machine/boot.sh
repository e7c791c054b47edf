#!/bin/sh
# boot.sh UNITS PYTHON PACKAGES SOURCE CONFS: become systemd, as PID 1 of the namespaces this is started in.
# It gets a /run, a /tmp, a /var/log, a /mnt, an /etc and a cgroup tree of its own, and no units but those in
# UNITS: nothing of the machine is started, mounted or cleaned up.
set -eu
units=$1 python=$2 packages=$3 source=$4 confs=$5
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
mkdir /mnt/units /mnt/python /mnt/packages /mnt/source /mnt/etc /mnt/work /mnt/tmp /mnt/work-tmp
mount --bind "$units" /mnt/units
mount --bind "$python" /mnt/python
mount --bind "$packages" /mnt/packages
mount --bind "$source" /mnt/source
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/etc,workdir=/mnt/work /etc
mkdir -p /etc/tunnel /etc/systemd/journald.conf.d
printf '[Journal]\nReadKMsg=no\nAudit=no\nStorage=volatile\n' >/etc/systemd/journald.conf.d/lab.conf
mount --bind "$confs" /etc/tunnel
# Not an empty one: a test's programs are in there.
mount -t overlay overlay -o lowerdir=/tmp,upperdir=/mnt/tmp,workdir=/mnt/work-tmp /tmp
chmod 1777 /tmp
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mount -t tmpfs tmpfs /sys/fs/cgroup 2>/dev/null || true
umount -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# As systemd does on a machine: what it mounts for a unit, such as credentials, is seen in there, too.
mount --make-rshared /
exec env -i PATH="$PATH" container=lab SYSTEMD_UNIT_PATH=/mnt/units \
    /lib/systemd/systemd --system --unit=lab.target --log-target=journal
