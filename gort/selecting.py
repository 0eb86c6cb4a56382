"""select: wait for several channels at once, and do exactly one operation.

The idea, as in Go.  Lock the channels of all cases, in one order for everybody (by id), so that the look at them is
one atomic look.  If any case can go ahead, do one of those, chosen at random.  Else, with a default, that; else leave
a ticket in every channel's queue and park.  All the tickets share one *race*: whoever comes to complete one of them
must first win it (`_Race.claim`, one atomic pop), so exactly one operation happens, whatever the other parties do at
the same moment in the other channels.  Afterwards the tickets of the losing cases are marked dead.

The same channel may stand in several cases, and send and receive on the same channel never meet each other, because
tickets are only left behind when no case could go ahead, and matched only by others.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .chan import CLOSED, NOTHING, Chan
from .errors import ChannelClosed
from .runtime import overdue as _overdue
from .runtime.chance import draw
from .runtime.latch import contend
from .runtime.timers import check_seconds
from .runtime.wait import Ticket, give_way, late, park, ready, waiter

T = TypeVar("T")

overdue = False
_overdue.register(globals())


class Case:
    """One case of a select: made by `recv` and `send`; may be kept and used again."""

    __slots__ = ("chan", "value")

    def __init__(self, chan: Chan[Any] | None, value: Any) -> None:
        if chan is not None and not isinstance(chan, Chan):
            raise TypeError(f"a select case needs a Chan (or None, which is never ready), not {type(chan).__name__}")
        self.chan = chan
        self.value = value

    def __repr__(self) -> str:
        return f"recv({self.chan!r})" if self.value is NOTHING else f"send({self.chan!r}, {self.value!r})"


def recv(chan: Chan[Any] | None) -> Case:
    """A case for `select`: receive from chan.  None: a case that is never ready.  Go: case v, ok := <-chan."""
    return Case(chan, NOTHING)


def send(chan: Chan[T] | None, value: T) -> Case:
    """A case for `select`: send value to chan.  None: a case that is never ready.  Go: case chan <- value."""
    return Case(chan, value)


class _Race:
    """What the tickets of one select share: only one of them is ever claimed."""

    __slots__ = ("cases", "permit", "whole", "winner")

    def __init__(self, cases: tuple[Case, ...], w: Any) -> None:
        self.permit = [None]
        self.winner: Ticket | None = None
        self.cases = cases
        self.whole: Ticket = [w, None, self, None]  # the ticket that time-outs and cancellations withdraw

    def claim(self, ticket: Ticket | None) -> bool:
        """Win the race for this ticket (None: for a time-out or a cancellation).  Any thread, atomic."""
        try:
            self.permit.pop()
        except IndexError:
            return False
        self.winner = ticket
        self.whole[0] = None
        return True

    # The whole select is a place to wait at, too: see runtime/wait.py.

    def withdraw(self, ticket: Ticket) -> bool:
        return self.claim(None)

    def give_back(self, _ticket: Ticket) -> None:
        """A plain thread was interrupted after a case had been done: a value that was received goes back."""
        ticket = self.winner
        if ticket is not None and self.cases[ticket[4]].value is NOTHING and ticket[1] is not CLOSED:
            ticket[2].give_back(ticket)

    def reason(self, _ticket: Ticket) -> str:
        # Not a value's repr: it is the program's own code, and this may run anywhere in the scheduler.
        names = [f"{'receive' if c.value is NOTHING else 'send'} {c.chan!r}" for c in self.cases if c.chan is not None]
        return "select: " + (", ".join(names) or "no cases")


def select(*cases: Case, default: bool = False, timeout: float | None = None) -> tuple[int, Any, bool]:
    """Do one of several channel operations: the first that can be done, at random among those that can be done now.

    Returns (index of the case, value received, ok).  ok is False, and the value None, when a receive case found its
    channel closed; a send case gives (index, None, True).  With default=True it does not wait, and returns
    (-1, None, False) if no case can go ahead; with a timeout (seconds) it raises TimeoutError when that is over.
    Raises ChannelClosed when the chosen case sends on a closed channel.  With no case that could ever be ready, and
    no default, it waits for ever.  Go: the select statement.
    """
    if overdue:
        give_way()
    for case in cases:
        if type(case) is not Case:
            raise TypeError(f"select takes cases made by recv(chan) and send(chan, value), not {type(case).__name__}")
    if timeout is not None:
        timeout = check_seconds(timeout, "timeout")
    chans = sorted({case.chan for case in cases if case.chan is not None}, key=id)
    wait = not default and (timeout is None or timeout > 0)

    # A pending cancellation is raised only if we have to wait, but it must not be raised under the latches: so look
    # once without a waiter, and once more with one.
    answer = _attempt(cases, chans, None)
    if answer is not None:
        return answer
    prepared = False
    for chan in chans:
        if type(chan) is not Chan:
            chan.prepare()
            prepared = True
    if not wait:
        answer = _attempt(cases, chans, None) if prepared else None
        if answer is not None:
            return answer
        if default:
            return -1, None, False
        raise late("select: no case is ready")
    w = waiter()
    race = _Race(cases, w)
    tickets: list[Ticket] = []
    answer = _attempt(cases, chans, (w, race, tickets))
    if answer is not None:
        return answer
    try:
        park(w, race.whole, timeout, "select")
    finally:
        for ticket in tickets:
            if ticket is not race.winner:
                chan = ticket[2]
                latch = chan._latch
                try:
                    latch.pop()
                except IndexError:
                    contend(latch)
                if ticket[0] is not None:
                    ticket[0] = None
                    chan._bury()
                latch.append(None)
                ticket[1] = ticket[3] = None  # as in Chan.withdraw
    ticket = race.winner  # type: ignore[assignment]
    index, value = ticket[4], ticket[1]
    if cases[index].value is NOTHING:
        return (index, None, False) if value is CLOSED else (index, value, True)
    if value is CLOSED:
        raise ChannelClosed(f"send on {ticket[2]!r}, which was closed meanwhile")
    return index, None, True


def _attempt(cases: tuple[Case, ...], chans: list[Chan[Any]], leave: Any) -> tuple[int, Any, bool] | None:
    """One atomic look at all channels: do a case that can be done, or None.

    leave: None, or (waiter, race, tickets): then, if nothing can be done, leave a ticket for every case.
    """
    for chan in chans:
        chan._lock()
    able = [i for i, case in enumerate(cases) if case.chan is not None and _can(case)]
    answer: tuple[int, Any, bool] | None = None
    error = None
    woken = None
    while able:
        # One by one, because a waiter that we saw may be a select that is won elsewhere before we claim it.
        index = able.pop(int(draw() * len(able)))
        case = cases[index]
        chan = case.chan
        assert chan is not None
        if case.value is NOTHING:
            got = chan._take()
            if got is not None:
                answer, woken = (index, got[0], True), got[1]
            elif chan._closed:
                answer = index, None, False
        elif chan._closed:
            answer = index, None, True
            error = ChannelClosed(f"send on closed {chan!r}")
        else:
            woken = chan._give(case.value)
            if woken is not None:
                answer = index, None, True
        if answer is not None:
            break
    if answer is None and leave is not None:
        w, race, tickets = leave
        for index, case in enumerate(cases):
            chan = case.chan
            if chan is not None:
                receives = case.value is NOTHING
                ticket: Ticket = [w, None if receives else case.value, chan, race, index]
                tickets.append(ticket)
                (chan._recvq if receives else chan._sendq).append(ticket)
    for chan in chans:
        chan._unlock()
    if error is not None:
        raise error
    if woken is not None and woken is not True:
        ready(woken)
    return answer


def _can(case: Case) -> bool:
    """Does it look as if the case could go ahead?  Under its channel's latch."""
    chan = case.chan
    assert chan is not None
    if chan._closed:
        return True
    if case.value is NOTHING:
        return bool(chan._buf or chan._sendq)
    return len(chan._buf) < chan._cap or bool(chan._recvq)
