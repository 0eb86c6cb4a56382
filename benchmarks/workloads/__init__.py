"""The workloads, one family a file. To add one, write the file and name it here, where it shall
stand in the reports. What a file holds is told in benchmarks/workload.py."""

MODULES = (
    "spawn",
    "channels",
    "selects",
    "locks",
    "yielding",
    "parked",
    "sleepers",
    "timers",
    "sieve",
    "pairs",
    "server",
    "blocking",
    "parallel",
)
