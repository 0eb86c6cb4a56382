"""Benchmarks of gort against the other ways to run many things at once in Python.

    python -m benchmarks                 every workload, every installed contender, 5 rounds
    python -m benchmarks --quick         small sizes, under two minutes
    python -m benchmarks --list          what there is to run
    python -m benchmarks --targets       measured against the project's own goals
    python -m benchmarks --code gevent   the code that a library is measured by
    pytest benchmarks/                   the same workloads as pytest-benchmark groups

How the files depend on each other, each on those before it only:

    meter        what is read around the timed work: time, CPU, context switches, memory, latencies
    contenders   the libraries: how each is started, and whether this interpreter can use it
    memory       how much memory may be used
    workload     what a workload is, and the list of all of them (their code is in workloads/)
    load         the client of the server workloads, a process of its own
    child        one contender on one workload in a process of its own
    shape        what a saved result must look like
    results      what was measured, its medians, spreads and ratios; saved and loaded as JSON
    machine      what it was measured on
    progress     the line that tells how long it will still take
    runner       starts the children, contenders interleaved, round by round
    tables, overview, svg, page, compare, targets      ways to look at the results
    cli          the command line

To add a workload, write a file in workloads/ and name it in workloads/__init__.py.

To publish new results, on a quiet machine with all libraries installed (some 18 minutes on two CPUs):

    python -m benchmarks --json results.json --html report.html > benchmarks/RESULTS.md
    python -m pytest tests/test_benchmarks.py -k readme        fails until the README quotes them, and prints its lines
"""

import os

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
