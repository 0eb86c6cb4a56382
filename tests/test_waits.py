"""What every wait of gort.net and gort.green has in common: limits reach it, and what a signal handler raises passes.

Both on the main goroutine of a run and on the plain main thread.
"""

from __future__ import annotations

import gc
import os
import signal
import socket as std_socket
import subprocess as std_subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from greenlet import getcurrent

import gort
from gort.green import os as green_os
from gort.green import select as green_select
from gort.green import socket as green_socket
from gort.green import subprocess as green_subprocess
from gort.green import threading as green_threading
from gort.green import time as green_time
from gort.runtime.netpoll import Descriptor

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX")

LONG = 50.0  # seconds: what a wait takes that nothing ends


def _sleep(_stack: ExitStack) -> None:
    green_time.sleep(LONG)


def _select(stack: ExitStack) -> None:
    ours, _theirs = _pair(stack)
    green_select.select([ours], [], [], LONG)


def _poll(stack: ExitStack) -> None:
    ours, _theirs = _pair(stack)
    poll = green_select.poll()
    poll.register(ours, green_select.POLLIN)
    poll.poll(LONG * 1000)


def _epoll(stack: ExitStack) -> None:
    ours, _theirs = _pair(stack)
    with closing(green_select.epoll()) as epoll:
        epoll.register(ours, green_select.EPOLLIN)
        epoll.poll(LONG)


def _recv(stack: ExitStack) -> None:
    ours, _theirs = _pair(stack)
    with green_socket.socket(fileno=os.dup(ours.fileno())) as sock:
        sock.settimeout(LONG)
        sock.recv(1)


def _pipe(stack: ExitStack) -> None:
    read, write = os.pipe()
    stack.callback(os.close, read)
    stack.callback(os.close, write)
    green_os.read(read, 1)


def _process(stack: ExitStack) -> None:
    child = green_subprocess.Popen(["sleep", str(LONG)])
    stack.callback(std_subprocess.Popen.wait, child)
    stack.callback(child.kill)
    child.wait(LONG)


def _waitpid(stack: ExitStack) -> None:
    child = std_subprocess.Popen(["sleep", str(LONG)])
    stack.callback(child.wait)
    stack.callback(child.kill)
    green_os.waitpid(child.pid, 0)


def _join(stack: ExitStack) -> None:
    over = green_threading.Event()
    thread = green_threading.Thread(target=over.wait)
    thread.start()
    stack.callback(thread.join)
    stack.callback(over.set)
    thread.join(LONG)


def _lock(_stack: ExitStack) -> None:
    lock = green_threading.Lock()
    lock.acquire()
    lock.acquire(timeout=LONG)


def _accept(stack: ExitStack) -> None:
    stack.enter_context(gort.net.listen("127.0.0.1:0")).accept(timeout=LONG)


def _read(stack: ExitStack) -> None:
    _connected(stack).read(1, timeout=LONG)


def _write(stack: ExitStack) -> None:
    conn = _connected(stack)
    while True:
        conn.write(bytes(1 << 20), timeout=LONG)


def _pair(stack: ExitStack) -> tuple[std_socket.socket, std_socket.socket]:
    ours, theirs = std_socket.socketpair()
    return stack.enter_context(ours), stack.enter_context(theirs)


def _connected(stack: ExitStack) -> Any:
    listener = stack.enter_context(gort.net.listen("127.0.0.1:0"))
    conn = stack.enter_context(gort.net.dial(listener.addr))
    stack.enter_context(listener.accept())
    return conn


WAITS = [_sleep, _select, _poll, _recv, _pipe, _process, _waitpid, _join, _lock, _accept, _read, _write]
if hasattr(green_select, "epoll"):
    WAITS.append(_epoll)


@pytest.fixture(params=["goroutine", "thread"])
def here(request: Any) -> Callable[[Callable[[], None]], None]:
    """Call it as the main goroutine, or on the plain thread."""
    return (lambda fn: gort.run(fn, procs=1)) if request.param == "goroutine" else (lambda fn: fn())


@pytest.fixture
def alarm() -> Iterator[Callable[[float], Any]]:
    """A signal whose handler raises a TimeoutError of its own, in so many seconds (0: never)."""

    def handler(*_: Any) -> None:
        raise TimeoutError("the handler's own")

    before = signal.signal(signal.SIGALRM, handler)
    gc.disable()  # the interpreter ignores what a handler raises while a collection's callback runs
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    gc.enable()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("wait", WAITS)
def test_a_handlers_own_timeout_error_is_not_the_waits(wait: Callable[[ExitStack], None], here: Any, alarm: Any) -> None:
    """Broken: a program whose signal handler raises TimeoutError is told that a wait's own time is over, or nothing."""

    def body() -> None:
        with ExitStack() as stack:
            with pytest.raises(TimeoutError, match="^the handler's own$"):
                alarm(0.05)
                try:
                    wait(stack)
                finally:
                    alarm(0)

    here(body)


@pytest.mark.parametrize("wait", WAITS)
def test_the_limit_of_a_block_ends_it(wait: Callable[[ExitStack], None], here: Any) -> None:
    """Broken: ``with timeout(...)`` does nothing to some wait, on a plain thread perhaps."""

    def body() -> None:
        with ExitStack() as stack:
            with pytest.raises(TimeoutError, match="time limit of 0.05 s"):
                with gort.timeout(0.05):
                    wait(stack)

    here(body)


@pytest.mark.parametrize("timeout", [None, LONG])
@pytest.mark.parametrize("where", ["thread", "goroutine", "poller"])
def test_a_signal_that_does_not_wake_the_main_thread_is_seen(where: str, timeout: float | None, alarm: Any) -> None:
    """Broken: Ctrl-C at a bad moment, or a signal that the system gives to another thread, waits until the wait is over."""
    alarm(0)
    mutex = gort.Mutex()
    mutex.lock()

    def other(m: Any) -> None:
        while not mutex._waiting() or (m is not None and not m.asleep):
            time.sleep(0.001)
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)

    def body() -> None:
        m = getattr(getcurrent(), "m", None)
        if where == "poller":
            with ExitStack() as stack:
                green_select.select([], [_pair(stack)[0]], [])  # from now on its machine has one
        thread = threading.Thread(target=other, args=[m])
        thread.start()
        with pytest.raises(TimeoutError, match="^the handler's own$"):
            mutex.lock(timeout)
        thread.join()
        assert not mutex._waiting()
        with pytest.raises(TimeoutError, match="timed out after 0.06"):  # longer than the first glance
            mutex.lock(0.06)

    if where == "thread":
        body()
    else:
        gort.run(body, procs=1)


@pytest.mark.parametrize("timeout", [None, LONG])
def test_a_signal_that_does_not_wake_the_main_thread_in_io_is_seen(timeout: float | None, alarm: Any) -> None:
    """Broken: likewise, where a plain main thread waits for a descriptor."""
    alarm(0)
    r, w = os.pipe()
    os.set_blocking(r, False)
    descriptor = Descriptor(r)

    def other() -> None:
        while descriptor.read.first is None:
            time.sleep(0.001)
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        with pytest.raises(TimeoutError, match="^the handler's own$"):
            descriptor.wait_read(timeout)
            descriptor.wait_read(timeout)  # the first may be for what was there before
        thread.join()
        assert descriptor.read.first is None
        with pytest.raises(TimeoutError, match="timed out after 0.06"):  # longer than the first glance
            descriptor.wait_read(0.06)
    finally:
        descriptor.close()
        os.close(r)
        os.close(w)
