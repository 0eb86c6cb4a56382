"""For `pytest benchmarks/`: a sentence where pytest-benchmark is missing, instead of an error for each test."""

import pytest


def pytest_configure(config):
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("pytest benchmarks/ needs pytest-benchmark: pip install -e '.[test]'")
