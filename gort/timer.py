"""Timer, Ticker, after and after_func: time as channels, as in Go.

The idea.  Each is an `Alarm` of the runtime (runtime/timers.py) whose callback sends the time to a channel of
capacity 1, or starts a goroutine.  As in Go since 1.23, the channel never holds a stale value: `stop` and `reset`
empty it, under the same lock under which the alarm sends, so that no send can be on its way when they return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import copy_context
from sys import _getframe
from time import monotonic
from typing import Any

from .chan import Chan
from .runtime import instance
from .runtime.goroutine import Goroutine
from .runtime.timers import Alarm, check_seconds, deadline
from .runtime.wait import ready


# Not `try_send` and `try_recv`: those may give way, and under an alarm's lock nobody must.
def _put(chan: Chan[float], value: float) -> None:
    chan._lock()
    woken = chan._give(value)
    chan._unlock()
    if woken is not None and woken is not True:
        ready(woken)


def _empty(chan: Chan[float]) -> bool:
    chan._lock()
    got = chan._take()
    chan._unlock()
    return got is not None


class Timer:
    """Rings once after so many seconds: sends the time (time.monotonic) to its channel `c`.

    Negative or zero seconds: at once.  Works on any thread; on a plain thread without a `run` it uses the background
    runtime.  The timer that after_func gives has no channel: its `c` is None.  Go: time.Timer, time.NewTimer.
    """

    __slots__ = ("_alarm", "_fn", "_sched", "c")

    def __init__(self, seconds: float) -> None:
        self._init(check_seconds(seconds), None)

    def _init(self, seconds: float, fn: Callable[[], Any] | None) -> None:
        self.c: Chan[float] = Chan(1) if fn is None else None  # type: ignore[assignment]
        self._fn = fn
        self._sched = instance.timers_home()
        self._alarm = Alarm()
        self._alarm.begin(self._sched, deadline(seconds), self._ring)

    def _ring(self) -> None:
        if self._fn is None:
            _put(self.c, monotonic())
        elif not self._sched.closing:
            self._fn()

    def stop(self) -> bool:
        """Ring no more.  True if that prevented a ring, False if it has rung or was stopped.  Go: Timer.Stop."""
        with self._alarm.lock:
            # Rung, but nobody has heard it: then it counts as prevented.
            stale = self._fn is None and _empty(self.c)
            return self._alarm.stop() or stale

    def reset(self, seconds: float) -> bool:
        """Ring so many seconds from now instead; True if it had still been going to ring.  Go: Timer.Reset."""
        when = deadline(check_seconds(seconds))
        with self._alarm.lock:
            if self._sched.closed:  # made in a `run` that has ended
                self._sched = instance.timers_home()
            stale = self._fn is None and _empty(self.c)
            return self._alarm.start(self._sched, when, self._ring) or stale

    def __repr__(self) -> str:
        return f"<gort.{type(self).__name__} {'planned' if self._alarm.planned() else 'not planned'}>"


class Ticker:
    """Rings every so many seconds: sends the time to its channel `c`; a tick that nobody took is dropped.

    May be iterated.  Stop it when it is no longer needed.  Raises ValueError unless seconds > 0.
    Go: time.Ticker, time.NewTicker.
    """

    __slots__ = ("_alarm", "_next", "_period", "_sched", "c")

    def __init__(self, seconds: float) -> None:
        self._period = _check_period(seconds)
        self.c: Chan[float] = Chan(1)
        self._sched = instance.timers_home()
        self._next = deadline(self._period)
        self._alarm = Alarm()  # in its place before it can ring: `_ring` starts it again
        self._alarm.begin(self._sched, self._next, self._ring)

    def _ring(self) -> None:
        now = monotonic()
        # The next multiple of the period that is still to come: a late tick does not make all others late.
        late = now - self._next
        missed = late / self._period
        self._next += self._period * max(1, int(missed) + 1) if missed < 1e15 else late
        _put(self.c, now)
        self._alarm.start(self._sched, self._next, self._ring)

    def stop(self) -> None:
        """Tick no more.  The channel is not closed.  Go: Ticker.Stop."""
        with self._alarm.lock:
            self._alarm.stop()
            _empty(self.c)

    def reset(self, seconds: float) -> None:
        """Tick every so many seconds from now on.  Go: Ticker.Reset."""
        period = _check_period(seconds)
        with self._alarm.lock:
            self._period = period
            _empty(self.c)
            self._next = deadline(period)
            self._alarm.start(self._sched, self._next, self._ring)

    def __iter__(self) -> Iterator[float]:
        return self.c

    def __repr__(self) -> str:
        return f"<gort.Ticker every {self._period:g} s>"


def _check_period(seconds: float) -> float:
    period = check_seconds(seconds)
    if not period > 0:
        raise ValueError(f"a Ticker's seconds must be more than 0, not {period:g}")
    return period


def after(seconds: float) -> Chan[float]:
    """A channel that receives the time once, so many seconds from now.  Go: time.After."""
    return Timer(seconds).c


def after_func(seconds: float, fn: Callable[..., Any], /, *args: Any, **kw: Any) -> Timer:
    """Call fn(*args, **kw) in a goroutine of its own, so many seconds from now; `stop` prevents it.

    Raises TypeError if fn cannot be called.  Go: time.AfterFunc.
    """
    instance._check_callable(fn, "after_func")
    seconds = check_seconds(seconds)
    context = copy_context()
    frame = _getframe(1)
    code, lasti = frame.f_code, frame.f_lasti

    def ring() -> None:
        instance.launch(Goroutine(fn, args, kw, context.copy(), code, lasti))

    timer = Timer.__new__(Timer)
    timer._init(seconds, ring)
    return timer
