"""For `pytest benchmarks/`: a sentence where something it needs is missing, instead of an error for each test.

Python's development mode is refused too. Here everything runs in pytest's own process, and in that mode asyncio checks
each callback, which the others do not; the memory allocator checks for all. (`python -m benchmarks` starts its children
without it.)
"""

import sys

import pytest

from benchmarks import contenders, runner


def pytest_configure(config):
    if sys.flags.dev_mode:
        raise pytest.UsageError(
            "pytest benchmarks/ would measure asyncio in debug mode: run it without -X dev and without PYTHONDEVMODE."
        )
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("pytest benchmarks/ needs pytest-benchmark: pip install -e '.[test]'")
    try:
        runner.check_gort()
    except contenders.UsageError as error:
        raise pytest.UsageError(str(error)) from None
