"""Every test has a time limit of its own: when it is over, the stacks of all threads are shown and the run ends.

A test waits for events, so a limit is only ever met by a hang, and then the stacks are what one wants to see.  It is generous,
for a machine that is busy otherwise may be thirty times as slow.
``@pytest.mark.limit(seconds)`` changes it for one test.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import sys

import pytest

LIMIT = float(os.environ.get("GORT_TEST_LIMIT", "120"))
_stderr = 2


def pytest_configure(config: pytest.Config) -> None:
    global _stderr
    # Not later, for pytest captures descriptor 2 while tests run, and not earlier, for it does so while this is imported.
    _stderr = os.dup(2)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell that starts us in the background hands that down to all
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "limit(seconds): a time limit other than the default one")


@pytest.fixture(autouse=True)
def _time_limit(request: pytest.FixtureRequest):
    mark = request.node.get_closest_marker("limit")
    faulthandler.dump_traceback_later(mark.args[0] if mark else LIMIT, exit=True, file=_stderr)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True, scope="module")
def _leave_nothing_running():
    """A background runtime or event loop that one file has used could wake anybody: beside it nothing is a deadlock."""
    yield
    from gort.runtime import instance

    faulthandler.dump_traceback_later(LIMIT, exit=True, file=_stderr)
    if instance._background is not None:
        instance._background.close()
    if "gort.aio" in sys.modules:
        sys.modules["gort.aio"]._close()
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=[1, 2, 8], ids=["procs1", "procs2", "procs8"])
def procs(request: pytest.FixtureRequest) -> int:
    """The numbers of Ps that every behaviour is tested with."""
    return request.param


@pytest.fixture
def jitter():
    """Make threads switch as often as the interpreter allows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def descriptors():
    """No file descriptor may be left open by what the test does."""

    def numbers() -> set[int]:
        return {int(name) for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")}

    before = numbers()
    yield
    if numbers() - before:
        gc.collect()  # what was dropped without being closed is not our matter
    assert not numbers() - before
