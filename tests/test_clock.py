"""Sysmon's question to the system: does this thread wait for a CPU, or for something else?"""

import os
import threading
import time

import pytest

from gort.runtime.handoff import Clock


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="only Linux tells")
def test_a_thread_that_waits_for_a_cpu_is_not_taken_for_a_blocked_one():
    """On a busy system a server's handlers are remembered as blocking, and each gets a thread of its own."""
    clocks = {}
    stop = threading.Event()
    go_on = threading.Lock()
    go_on.acquire()

    def computes():
        clocks["computes"] = Clock(threading.get_ident())
        while not stop.is_set():
            sum(range(1000))

    def blocks():
        clocks["blocks"] = Clock(threading.get_ident())
        go_on.acquire()

    threads = [threading.Thread(target=fn) for fn in (computes, blocks)]
    for thread in threads:
        thread.start()
    while len(clocks) < 2:
        time.sleep(0.001)
    try:
        # While we ask we have the GIL, so who computes waits for that, unless it runs in C or is not scheduled: it is
        # enough that it is found runnable now and then, for each time takes it back from being "blocked".
        end = time.monotonic() + 20
        found = False
        while not found and time.monotonic() < end:
            found = clocks["computes"].runnable()
            time.sleep(0.001)
        assert found
        end = time.monotonic() + 20
        while clocks["blocks"].runnable() and time.monotonic() < end:
            time.sleep(0.001)  # it may only be on its way into the lock
        assert not any(clocks["blocks"].runnable() for _ in range(100))
    finally:
        stop.set()
        go_on.release()
        for thread in threads:
            thread.join()
    while clocks["blocks"].runnable():  # it has ended for Python, and is about to for the system
        time.sleep(0.001)
