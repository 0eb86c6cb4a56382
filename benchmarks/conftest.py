"""For `pytest benchmarks/`: a sentence where something it needs is missing, instead of an error for each test."""

import pytest

from benchmarks import contenders, runner


def pytest_configure(config):
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("pytest benchmarks/ needs pytest-benchmark: pip install -e '.[test]'")
    try:
        runner.check_gort()
    except contenders.UsageError as error:
        raise pytest.UsageError(str(error)) from None
