#!/bin/busybox sh
# shellcheck shell=dash
# The guest's first process. It runs /script and ends with one verdict line, which xtask reads.
/bin/busybox mkdir -p /bin /sbin /proc /sys /dev /tmp /run /root
/bin/busybox --install -s /bin

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts && mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
exec </dev/null >/dev/console 2>&1

for module in /modules/*.ko; do
    [ ! -e "$module" ] || insmod "$module" || echo "tcp-tools-vm: cannot load $module"
done
ip link set lo up

export PATH=/bin HOME=/root TERM=dumb RUST_BACKTRACE=1
export TCP_TOOLS_BIN=/bin/tcp-tools TCP_TOOLS_TEST_BIN_DIR=/helpers TCP_TOOLS_REQUIRE=1
(cd /root && exec sh /script)
status=$?

# What the kernel complained of without stopping; the console shows only emergencies.
dmesg | grep -E 'BUG: |Oops: |soft lockup|blocked for more than'

if [ "$status" = 0 ]; then
    echo "tcp-tools-vm: verdict ok"
else
    echo "tcp-tools-vm: verdict failed $status"
fi
# Setting the console's attributes waits until all of the output is out.
stty sane </dev/console
poweroff -f
