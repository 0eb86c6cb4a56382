"""Channels, with Go's semantics to the letter.

The idea.  A channel is a buffer, a queue of waiting receivers and a queue of waiting senders, under a latch.

Invariants, whenever the latch is free ("waiting" counts live tickets only, see runtime/wait.py):

- receivers wait only while the buffer is empty and no sender waits;
- senders wait only while the buffer is full (an unbuffered channel's always is);
- on a closed channel nobody waits;
- the exception to the first two: one `select` may stand in both queues of a channel, and never meets itself.

From these the cases follow.  Send: closed, an error; a receiver waits, hand it the value; room, put it in the buffer;
else wait.  Receive: the buffer has something, take the head (and if a sender waits, put its value to the tail and wake
it); a sender waits, take its value; closed, say so; else wait.

Speed.  `send` and `recv` are the two functions that everything else in a program waits for, so they are written out:
latch, wake and park are inlined here and only here (a call is 35 ns, and there would be four in each operation of
150 to 700).  `_give` and `_take` are the same cases in plain words, used by everything that is not on the hot path,
and tests/test_chan.py holds the two to the same behaviour.

Refused: locks from `threading` (see runtime/latch.py); a ticket class (a list display is half the price); one queue
for both directions (saves memory, costs a test in every operation).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from sys import _getframe
from types import GenericAlias
from typing import Any, Generic, TypeVar

from greenlet import getcurrent

from .errors import ChannelClosed
from .runtime import overdue as _overdue
from .runtime.goroutine import place_of
from .runtime.latch import contend
from .runtime.timers import check_seconds
from .runtime.wait import Ticket, give_way, late, park, ready, ready_throw, waiter

T = TypeVar("T")

overdue = False
_overdue.register(globals())


class _Nothing:
    """Stands for "no value" where None would be one."""

    def __repr__(self) -> str:
        return "<nothing>"


NOTHING: Any = _Nothing()
CLOSED: Any = _Nothing()
_SWEEP = 32  # dead tickets in a channel's queues before they are swept out


class Chan(Generic[T]):
    """A channel: what one goroutine sends another receives, in order.

    capacity is how many values it holds that nobody has received yet; with 0 a send waits for its receiver.  All
    operations work from goroutines of any machine and from plain threads.  Go: make(chan T, capacity).

    A channel may be iterated: ``for value in ch`` receives until it is closed and empty.  Go: for v := range ch.
    """

    __slots__ = ("__weakref__", "_buf", "_cap", "_closed", "_code", "_dead", "_lasti", "_latch", "_recvq", "_sendq")

    def __init__(self, capacity: int = 0) -> None:
        if type(capacity) is not int:
            _check_capacity(capacity)
        if capacity < 0:
            raise ValueError(f"capacity must be 0 (unbuffered) or more, not {capacity}")
        self._cap = capacity
        self._buf: deque[T] = deque()
        self._recvq: deque[Ticket] = deque()
        self._sendq: deque[Ticket] = deque()
        self._latch: list[None] = [None]
        self._closed = False
        self._dead = 0  # about how many dead tickets stand in the queues
        frame = _getframe(1)
        self._code = frame.f_code
        self._lasti = frame.f_lasti

    # The C alias: typing's own would stand between us and the frame that makes the channel.
    __class_getitem__ = classmethod(GenericAlias)  # type: ignore[assignment]

    # -- the two hot ones ---------------------------------------------------------------------------------------

    def send(self, value: T, timeout: float | None = None) -> None:
        """Send a value: wait until a receiver takes it or the buffer has room.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises ChannelClosed on a closed channel, also when
        it is closed meanwhile, and TimeoutError; the value has then not been sent.  Go: ch <- value.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if overdue:
            give_way()
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        queue = self._recvq
        while queue:
            ticket = queue.popleft()
            w = ticket[0]
            if w is None or (ticket[3] is not None and not ticket[3].claim(ticket)):
                self._dead -= 1
                continue
            ticket[1] = value
            ticket[0] = None
            latch.append(None)
            w.ready.append(w)
            if w.m.asleep:
                w.m.wake()
            return
        buf = self._buf
        if len(buf) < self._cap and not self._closed:
            buf.append(value)
            latch.append(None)
            return
        w: Any = getcurrent()
        try:
            queue = w.ready
            quick = timeout is None and w.pending is None and not self._closed
        except AttributeError:
            quick = False  # no carrier: a plain thread, or a greenlet of the program's own
        if quick:
            w.wait = ticket = [w, value, self, None]
            self._sendq.append(ticket)
            latch.append(None)
            m = w.m
            m.parked = w.seq = m.parked + 1
            if queue:
                queue.popleft().switch()
            else:
                m.hub.switch()
            w.wait = None
            return
        latch.append(None)
        self._send_slowly(value, timeout)

    def recv(self, timeout: float | None = None) -> T:
        """Receive a value: wait until there is one.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises ChannelClosed when the channel is closed and
        empty, and TimeoutError.  Go: <-ch, but see `recv_ok` for Go's second value.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if overdue:
            give_way()
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        buf = self._buf
        queue = self._sendq
        if buf:
            value = buf.popleft()
            while queue:
                ticket = queue.popleft()
                w = ticket[0]
                if w is None or (ticket[3] is not None and not ticket[3].claim(ticket)):
                    self._dead -= 1
                    continue
                buf.append(ticket[1])
                ticket[0] = None
                latch.append(None)
                w.ready.append(w)
                if w.m.asleep:
                    w.m.wake()
                return value
            latch.append(None)
            return value
        while queue:
            ticket = queue.popleft()
            w = ticket[0]
            if w is None or (ticket[3] is not None and not ticket[3].claim(ticket)):
                self._dead -= 1
                continue
            value = ticket[1]
            ticket[0] = None
            latch.append(None)
            w.ready.append(w)
            if w.m.asleep:
                w.m.wake()
            return value
        w: Any = getcurrent()
        try:
            queue = w.ready
            quick = timeout is None and w.pending is None and not self._closed
        except AttributeError:
            quick = False  # no carrier: a plain thread, or a greenlet of the program's own
        if quick:
            w.wait = ticket = [w, None, self, None]
            self._recvq.append(ticket)
            latch.append(None)
            m = w.m
            m.parked = w.seq = m.parked + 1
            if queue:
                queue.popleft().switch()
            else:
                m.hub.switch()
            w.wait = None
            return ticket[1]
        latch.append(None)
        return self._recv_slowly(timeout)

    # -- the same in plain words --------------------------------------------------------------------------------

    def prepare(self) -> None:
        """For a kind of channel that has something to do before somebody waits at it.  Not under a latch."""

    def _lock(self) -> None:
        try:
            self._latch.pop()
        except IndexError:
            contend(self._latch)

    def _unlock(self) -> None:
        self._latch.append(None)

    def _first(self, queue: deque[Ticket]) -> Any:
        """Claim the first live ticket of a queue: (ticket, waiter), or None.  Under the latch."""
        while queue:
            ticket = queue.popleft()
            w = ticket[0]
            if w is not None and (ticket[3] is None or ticket[3].claim(ticket)):
                ticket[0] = None
                return ticket, w
            self._dead -= 1
        return None

    def _give(self, value: T) -> Any:
        """Send without waiting: True, the receiver to wake, or None if the channel is full.  Under the latch."""
        found = self._first(self._recvq)
        if found is not None:
            found[0][1] = value
            return found[1]
        if len(self._buf) < self._cap:
            self._buf.append(value)
            return True
        return None

    def _take(self) -> Any:
        """Receive without waiting: (value, the sender to wake or None), or None.  Under the latch."""
        if self._buf:
            value: Any = self._buf.popleft()
            found = self._first(self._sendq)
            if found is None:
                return value, None
            self._buf.append(found[0][1])
            return value, found[1]
        found = self._first(self._sendq)
        return None if found is None else (found[0][1], found[1])

    def try_send(self, value: T) -> bool:
        """Send if that needs no waiting; has it been sent?  Raises ChannelClosed.  Go: select with a default."""
        if overdue:
            give_way()
        self._lock()
        closed = self._closed
        woken = None if closed else self._give(value)
        self._unlock()
        if closed:
            raise ChannelClosed(f"send on closed {self!r}")
        if woken is not None and woken is not True:
            ready(woken)
        return woken is not None

    def try_recv(self) -> tuple[T | None, bool]:
        """Receive if that needs no waiting: (value, True), or (None, False).  `closed` tells why not.

        Go: select with a default.
        """
        if overdue:
            give_way()
        self._lock()
        got = self._take()
        self._unlock()
        if got is None:
            return None, False
        if got[1] is not None:
            ready(got[1])
        return got[0], True

    def _send_slowly(self, value: T, timeout: float | None) -> None:
        """`send` from plain threads, with a time-out, with a cancellation pending, or on a closed channel."""
        if self.try_send(value):
            return
        if timeout is not None and timeout <= 0:
            raise late(f"send on {self!r}: nobody receives and there is no room")
        w = waiter()
        self._lock()
        closed = self._closed
        woken = None if closed else self._give(value)
        if woken is None and not closed:
            ticket: Ticket = [w, value, self, None]
            self._sendq.append(ticket)
        self._unlock()
        if closed:
            raise ChannelClosed(f"send on closed {self!r}")
        if woken is None:
            park(w, ticket, timeout, "send")
        elif woken is not True:
            ready(woken)

    def _recv_slowly(self, timeout: float | None) -> T:
        """`recv` from plain threads, with a time-out, with a cancellation pending, or on a closed channel."""
        w = None
        while True:
            self._lock()
            got = self._take()
            closed = self._closed
            if got is None and not closed and w is not None:
                ticket: Ticket = [w, None, self, None, "recv"]
                self._recvq.append(ticket)
                self._unlock()
                return park(w, ticket, timeout, "receive")
            self._unlock()
            if got is not None:
                if got[1] is not None:
                    ready(got[1])
                return got[0]
            if closed:
                raise ChannelClosed(f"receive on closed {self!r}")
            if timeout is not None and timeout <= 0:
                raise late(f"receive on {self!r}: it is empty")
            w = waiter()  # raises a pending cancellation, so not under the latch, and not before it has to wait

    def recv_ok(self, timeout: float | None = None) -> tuple[T | None, bool]:
        """Receive: (value, True), or (None, False) when the channel is closed and empty.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError.  Go: v, ok := <-ch.
        """
        try:
            return self.recv(timeout), True
        except ChannelClosed:
            return None, False

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return self.recv()
        except ChannelClosed:
            raise StopIteration from None

    def close(self) -> None:
        """No more values will be sent.  What is in the buffer can still be received.

        Wakes all blocked receivers ("closed") and senders (ChannelClosed).  Raises ChannelClosed if it is closed
        already.  Go: close(ch).
        """
        receivers, senders = [], []
        self._lock()
        twice = self._closed
        if not twice:
            self._closed = True
            while (found := self._first(self._recvq)) is not None:
                receivers.append(found)
            while (found := self._first(self._sendq)) is not None:
                senders.append(found)
        self._unlock()
        if twice:
            raise ChannelClosed(f"close of closed {self!r}")
        for ticket, w in receivers:
            if ticket[3] is not None:  # a select: for it, "closed" is an answer like any other
                ticket[1] = CLOSED
                ready(w)
            else:
                ready_throw(w, ChannelClosed(f"receive on closed {self!r}"))
        for ticket, w in senders:
            if ticket[3] is not None:
                ticket[1] = CLOSED
                ready(w)
            else:
                ready_throw(w, ChannelClosed(f"send on {self!r}, which was closed meanwhile"))

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Has it been closed?  (It may still hold values.)"""
        return self._closed

    @property
    def capacity(self) -> int:
        """How many values it can hold.  Go: cap(ch)."""
        return self._cap

    def __len__(self) -> int:
        """How many values it holds.  Go: len(ch)."""
        return len(self._buf)

    def __bool__(self) -> bool:
        return True  # a channel is not false because it is empty

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return f"<Chan {len(self._buf)}/{self._cap}{state} made at {place_of(self._code, self._lasti)}>"

    # -- as a place where tickets wait: see runtime/wait.py -------------------------------------------------------

    def withdraw(self, ticket: Ticket) -> bool:
        """Take back a ticket that nobody has claimed yet (runtime/wait.py); was it so?"""
        self._lock()
        alive = ticket[0] is not None
        if alive:
            ticket[0] = None
            self._bury()
        self._unlock()
        if alive:
            ticket[1] = None  # it may stay in the queue for long, and be taken out under the latch (latch.py)
        return alive

    def _bury(self) -> None:
        """Another dead ticket stands in a queue: sweep them out when they are many.  Under the latch."""
        self._dead += 1
        if self._dead > _SWEEP and self._dead * 2 > len(self._recvq) + len(self._sendq):
            self._recvq = deque(ticket for ticket in self._recvq if ticket[0] is not None)
            self._sendq = deque(ticket for ticket in self._sendq if ticket[0] is not None)
            self._dead = 0

    def give_back(self, ticket: Ticket) -> None:
        """A plain thread was interrupted after it had been handed a value: put that back at the head."""
        if len(ticket) != 5:
            return  # a sender's: its value has gone where it should (a select's: see there)
        self._lock()
        found = self._first(self._recvq)
        if found is not None:
            found[0][1] = ticket[1]
        else:
            self._buf.appendleft(ticket[1])
        self._unlock()
        if found is not None:
            ready(found[1])

    def reason(self, ticket: Ticket) -> str:
        """What a waiter with this ticket waits for, for people."""
        sending = any(other is ticket for other in self._sendq.copy())
        return f"chan {'send' if sending else 'receive'}: {self!r}"


def _check_capacity(capacity: Any) -> None:
    if isinstance(capacity, bool) or not hasattr(capacity, "__index__"):
        raise TypeError(f"capacity must be a whole number, not {type(capacity).__name__}")
