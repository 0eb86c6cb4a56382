"""How much memory a benchmark may still take: what the machine has left, and what this process is allowed.

The machine says it in /proc/meminfo, but a container (Docker, Kubernetes, a unit of systemd) sees the machine's number
there and is killed at its own. That one stands in the files of the process's control group and of those above it, each of
which is a limit of its own:

    v2   the line "0::PATH" of /proc/self/cgroup, and memory.max
    v1   the line "N:memory:PATH", and memory.limit_in_bytes

A PATH that is not below the mount point is one that this container cannot see; the mount point is then its own group,
and what is looked at is that alone. "max" is no limit, and neither is the huge number that v1 has for it. What the group already
uses is not taken away from its limit: most of that is cached files, which the kernel gives back.

A library (psutil) was refused: it does not look at groups, and this is all that would be used of it.
"""

import os

_NONE_FROM = 1 << 60  # v1 says "no limit" with the largest number of whole pages


def available_bytes(root="/"):
    """Memory that can be had without swapping and without being killed, or None where the platform does not tell.

    `root` is the folder in which proc/ and sys/ are.
    """
    found = [size for size in (_left_of_machine(root), *_limits(root)) if size is not None]
    return min(found, default=None)


def _left_of_machine(root):
    for line in _lines(root, "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _limits(root):
    """The limit of each group that this process is in."""
    for line in _lines(root, "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mount, name = "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # a group beside or above what can be seen
            parts = []
        for depth in range(len(parts) + 1):
            for text in _lines(root, os.path.join(mount, *parts[:depth], name)):
                if text.isdecimal() and int(text) < _NONE_FROM:
                    yield int(text)


def _lines(root, path):
    """The lines of a file, none where it cannot be read."""
    try:
        with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
