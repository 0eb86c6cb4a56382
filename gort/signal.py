"""signal: operating system signals as values on a channel, as Go's os/signal.

::

    stop = gort.Chan(1)
    gort.signal.notify(stop, signal.SIGTERM, signal.SIGINT)
    ...
    index, number, ok = gort.select(gort.recv(stop), gort.recv(work))

The idea.  A handler of Python's runs on the main thread between any two instructions: in the middle of the scheduler,
or of the very channel that it would send to.  So the handler does nothing but put the signal's number into a
SimpleQueue, whose ``put`` is made to be called from there.  A thread takes it out and tries to send it on every
channel that asked for it.  It never waits for a receiver: as in Go, a channel without room misses the signal.  So give
it room for as many as may come at a time; 1 is enough for "please stop".

The thread exists while anybody is notified.  It is also why a program that waits for a signal alone is no deadlock.

Handlers.  The first `notify` for a signal installs ours and keeps the one it found; when nobody asks for the signal
any more, that one is put back.  Only Python's main thread can do this.  `stop` may be called from anywhere: off the
main thread it leaves our handler in place, and should the signal come once more, the handler first puts back what was
there, and raises the signal again.

The main thread has to get to run for a handler to be called.  In a machine that sleeps, in the poller or elsewhere, the
signal ends the sleep (runtime/interrupt.py tells how without a GIL).  A call of C that holds the main thread holds the
signal back, in gort as in any Python program.

Refused: to start a goroutine from the handler, or to send from there (both may find a latch taken by the very code
that they interrupted); `signal.set_wakeup_fd` (there is one for a process, and asyncio wants it).
"""

from __future__ import annotations

import _thread
import queue
import signal as _signal
import threading
from types import FrameType
from typing import Any

from .chan import Chan
from .errors import ChannelClosed, GortError
from .runtime.fork import in_child
from .runtime.instance import quitting
from .runtime.interrupt import rightful

__all__ = ["notify", "stop"]

# The processor raises these for what the running code does wrong; a handler of Python's could not do anything about it.
_FAULTS = ("SIGSEGV", "SIGFPE", "SIGILL", "SIGBUS", "SIGABRT", "SIGTRAP", "SIGSYS", "SIGKILL", "SIGSTOP")

_lock = threading.Lock()  # for the three below; never taken by the handler
_channels: dict[int, tuple[Chan[Any], ...]] = {}  # who asked for a signal; replaced, never changed
_before: dict[int, Any] = {}  # the handlers found
_arrived: queue.SimpleQueue[int | None] = queue.SimpleQueue()
_relaying = False


def _has_name(number: int) -> bool:
    return number in _signal.Signals.__members__.values()  # the real-time signals have none but the first and the last


def _name(number: int) -> str:
    return _signal.Signals(number).name if _has_name(number) else f"signal {number}"


def _all() -> set[int]:
    faults = {getattr(_signal, name, None) for name in _FAULTS}
    return {n for n in _signal.valid_signals() if n not in faults and _signal.getsignal(n) is not None}


def _check(chan: Any, signums: tuple[Any, ...], what: str) -> set[int]:
    if not isinstance(chan, Chan):
        raise TypeError(f"{what} needs a gort.Chan to send signals to, not {type(chan).__name__}")
    numbers = set()
    for signum in signums:
        if not isinstance(signum, int) or isinstance(signum, bool):
            raise TypeError(f"{what}: a signal must be a number such as signal.SIGTERM, not {type(signum).__name__}")
        if signum not in _signal.valid_signals():
            raise ValueError(f"{what}: {signum} is no signal of this system")
        if signum in (_signal.SIGKILL, _signal.SIGSTOP):
            raise ValueError(f"{what}: no process can be notified of {_signal.Signals(signum).name}")
        numbers.add(int(signum))
    return numbers


def notify(chan: Chan[Any], *signums: int) -> None:
    """Send these signals to a channel from now on (no signum: all that a program can be notified of).

    What is sent is the signal.Signals member.  A channel that has no room when one comes, misses it.  Calls add up: a
    channel may be notified of several signals, and several channels of one.  A closed channel is forgotten.  The first
    call for a signal must be made on Python's main thread, where the main goroutine of `run` is (GortError elsewhere).
    Go: signal.Notify.
    """
    numbers = _check(chan, signums, "notify") or _all()
    with _lock:
        for number in numbers:
            channels = _channels.get(number, ())
            if not any(other is chan for other in channels):
                # This first, and only then a look at whether our handler is in place: one that finds nobody to notify
                # (see `stop`) takes itself away.
                _channels[number] = (*channels, chan)
            on_main = threading.current_thread() is threading.main_thread()
            if number not in _before or (on_main and _signal.getsignal(number) is not _handle):
                if not on_main:
                    _forget(chan, number)
                    raise GortError(
                        f"notify for {_name(number)} was called off Python's main thread, and only that one "
                        "can install a handler: call it first in the main goroutine of gort.run()"
                    )
                _before[number] = _signal.getsignal(number)
                _signal.signal(number, _handle)
        _start_relay()


def stop(chan: Chan[Any]) -> None:
    """Send nothing more to this channel.  When it returns, none will come.  Go: signal.Stop."""
    _check(chan, (), "stop")
    with _lock:
        _forget(chan)
        _restore()


def _forget(chan: Chan[Any], *numbers: int) -> None:
    for number in numbers or list(_channels):
        rest = tuple(other for other in _channels[number] if other is not chan)
        if rest:
            _channels[number] = rest
        else:
            del _channels[number]


def _restore() -> None:
    """Put back the handlers of signals that nobody asks for, if that is possible on this thread."""
    global _relaying
    if threading.current_thread() is threading.main_thread():
        for number in [number for number in _before if number not in _channels]:
            _put_back(number)
    if not _channels and _relaying:
        _relaying = False
        _arrived.put(None)


def _put_back(number: int) -> None:
    before = _before.pop(number)
    # What was gort's or Python's own may be the other's by now: a `run` has ended since, or begun.
    if number == _signal.SIGINT:
        before = rightful(before)
    elif number == getattr(_signal, "SIGQUIT", None):
        before = quitting.rightful(before)
    if _signal.getsignal(number) is _handle:  # else somebody has installed his own after us
        _signal.signal(number, _signal.SIG_DFL if before is None else before)


def _handle(number: int, frame: FrameType | None) -> None:
    """The handler: on the main thread, between any two instructions of it."""
    if number in _channels:
        _arrived.put(number)
    else:  # `stop` was called on another thread, and left this to us
        if number in _before:
            _put_back(number)
        _signal.raise_signal(number)


# For the deadlock detector: what a signal would meet.
_handle.stands_for = lambda number: _handle if number in _channels else _before.get(number)  # type: ignore[attr-defined]


def _start_relay() -> None:
    global _relaying
    if not _relaying:
        _relaying = True
        # Not a threading.Thread: its start waits for the new thread, and after a fork that would be too early.
        _thread.start_new_thread(_relay, ())


def _relay() -> None:
    """The thread that sends."""
    while True:
        number = _arrived.get()
        with _lock:
            if number is None:
                return  # for each that was started there is one, and it does not matter which of two gets it
            value = _signal.Signals(number) if _has_name(number) else number
            for chan in _channels.get(number, ()):
                try:
                    chan.try_send(value)
                except ChannelClosed:
                    _forget(chan)


def _after_fork() -> None:
    """The child has the handlers and the channels, but not the thread."""
    global _lock, _relaying, _arrived
    _lock = threading.Lock()
    _arrived = queue.SimpleQueue()
    if _relaying:
        _relaying = False
        _start_relay()


in_child(_after_fork)
