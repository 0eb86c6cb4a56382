"""What a result was measured on: the machine, the interpreter, the GIL, the versions, the command.

A number without these cannot be checked by anybody, so they are part of every result file and
stand at the top of every report. Nothing here names a person or a machine by its name: a result file
is meant to be published.

A busy machine is the commonest reason for a strange number, so the neighbours are measured too: the
share of the CPUs that other processes, or another guest of the same host, used while the benchmarks
ran. Above a few per cent the parallel workloads mean little, and the table says so at its top.
"""

import os
import platform
import shlex
import sysconfig
from datetime import datetime, timezone

from benchmarks import contenders, shape
from benchmarks.workload import usable_cpus

LIBRARIES = ("greenlet", "gevent", "uvloop", "trio")


def facts(argv):
    """Everything about this machine and interpreter that a reader of a result needs, as a dict."""
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command_line(argv),
        "machine": {
            "system": shape.one_line(f"{platform.system()} {platform.release()} {platform.machine()}"),
            "cpu": shape.one_line(cpu_name()),
            "cpus": usable_cpus(),
            "memory_gb": memory_gb(),
        },
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "compiler": shape.one_line(platform.python_compiler()),
            "gil": gil_state(),
        },
        "versions": {name: found for name in LIBRARIES if (found := contenders.version(name))},
    }


def command_line(argv):
    """The command as others can repeat it: of files elsewhere only the last part, for the folders are the user's."""
    words = ["python", "-m", "benchmarks"]
    for word in argv:
        option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
        words.append(option + equals + (os.path.basename(value) if os.path.isabs(value) else value))
    return shape.one_line(shlex.join(words))


def gil_state():
    """One of: "on", "off", "on, in a free-threaded build"."""
    if contenders.free_threaded():
        return "off"
    return "on, in a free-threaded build" if sysconfig.get_config_var("Py_GIL_DISABLED") else "on"


def cpu_name():
    """The processor's own name for itself where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as cpuinfo:
            for line in cpuinfo:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def memory_gb():
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


class Neighbours:
    """What others use of this machine's CPUs, from now on until asked."""

    def __init__(self):
        self._start = self._read()

    @staticmethod
    def _read():
        """(seconds that CPUs worked or were withheld, our share of it, all seconds), or None."""
        try:
            with open("/proc/stat", encoding="ascii") as stat:
                # user nice system idle iowait irq softirq steal; guest time is within user's
                ticks = [int(field) for field in stat.readline().split()[1:9]]
        except (OSError, ValueError):
            return None
        per_second = os.sysconf("SC_CLK_TCK")
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        return (sum(ticks) - ticks[3] - ticks[4]) / per_second, own, sum(ticks) / per_second

    def share(self):
        """The share of all CPU time since then that others used, 0 to 1; None if nobody can tell."""
        end = self._read()
        if end is None or self._start is None or end[2] <= self._start[2]:
            return None
        busy, own, total = (after - before for after, before in zip(end, self._start))
        return min(1.0, max(0.0, (busy - own) / total))


def lines(found):
    """The facts as lines for people: a list of (name, text)."""
    machine, python = found["machine"], found["python"]
    cpus = "1 CPU" if machine["cpus"] == 1 else f"{machine['cpus']} CPUs"
    memory = f", {machine['memory_gb']} GB" if machine.get("memory_gb") else ""
    others = machine.get("others")
    busy = f", {others:.0%} of the CPU time used by others meanwhile" if others is not None else ""
    return [
        ("date", found["date"]),
        ("command", found["command"]),
        ("machine", f"{machine['cpu']}, {cpus} usable{memory}{busy}"),
        ("system", machine["system"]),
        ("python", f"{python['implementation']} {python['version']}, GIL {python['gil']}, {python['compiler']}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in found["versions"].items()) or "none"),
    ]
