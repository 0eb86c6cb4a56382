"""python -m gort: what gort would run on here."""

from __future__ import annotations

import argparse
import os
import platform
import sys

import greenlet

from . import __version__, num_cpu
from .runtime.goroutine import FREE_THREADED
from .runtime.limits import default_max_threads, default_procs


def main(argv: list[str] | None = None) -> int:
    """Print what gort is and what it would run on here: the first thing to add to a report of a problem."""
    parser = argparse.ArgumentParser(prog="gort", description="Show what gort runs on here.")
    parser.add_argument("--version", action="version", version=f"gort {__version__}")
    parser.parse_args(argv)
    try:
        procs, limit = default_procs(), default_max_threads()
    except (TypeError, ValueError) as exc:
        print(f"gort: {exc}", file=sys.stderr)
        return 2
    print(f"gort {__version__}")
    print(f"Python {platform.python_version()} ({platform.python_implementation()}), GIL {'off' if FREE_THREADED else 'on'}")
    print(f"greenlet {greenlet.__version__}, {platform.system()} {platform.machine()}, {num_cpu()} CPUs")
    print(f"procs {procs}, at most {limit} threads, GORT_DEBUG={os.environ.get('GORT_DEBUG', '')!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
