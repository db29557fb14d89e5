#!/usr/bin/env bash
# Copies a stream and a file, compares every byte, and counts the system calls of the copies by
# `io::copy`. Fails if 64 KiB or more of such a copy pass through the memory of the process. Needs
# strace. Builds in benches/target.
#
# usage: ci/zero-copy.sh [MIB]      the size of each copy in MiB; default: 1024
set -euo pipefail
cd "$(dirname "$0")/../benches"
readonly mib=${1:-1024}

cargo build --release --no-default-features --features netpoll --bin proxy --target-dir target
trace=$(mktemp -d)
trap 'rm -r "$trace"' EXIT
# The parent process is the sender and the receiver. A child process makes each copy, on its first
# thread. Each thread has its own trace file.
strace -ff -o "$trace/calls" -e trace=execve,splice,sendfile,read,write,recvfrom,sendto,sendmsg,readv \
    target/release/proxy --mib "$mib" --rounds 1

# Prints, for each way, the number of calls that move bytes within the kernel, the bytes that they
# moved, and the bytes that went through the memory of the process.
for way in splice sendfile; do
    first=$(grep -l "\"serve\", \"$way\"" "$trace"/calls.*)
    awk -v way="$way" '
        $1 ~ /^(splice|sendfile)\(/ && $NF ~ /^[0-9]+$/ { calls++; moved += $NF }
        $1 ~ /^(read|write|recvfrom|sendto|sendmsg|readv)\(/ && $NF ~ /^[0-9]+$/ { through += $NF }
        END { printf "%s: %d calls moved %d bytes; %d bytes went through memory\n", way, calls, moved, through
              exit !(calls > 0 && through < 65536) }' "$first"
done
