"""For how long has a goroutine waited?  An answer that costs the waiting goroutine 5 ns.

The idea.  Reading a clock at each wait would cost 45 ns of some 700.  But a machine counts its waits anyway
(`Machine.parked`), so each waiter keeps the number of its wait (`seq`), and the machine notes now and then what the time
was and what the count (`Ages.note`, from the hub, which runs every 10 ms while there is work, and before each sleep).
The wait number n began before the first note that counts n or more.  So what is told is "at least so long", and exact to
a second where a machine has gone on meanwhile.

Only the machine's own thread writes; a reader on another thread may miss the newest note, no more.  The notes are
thinned as they get old: half of a long history goes, so that they stay few and their relative error the same.
"""

from __future__ import annotations

EVERY = 1.0  # seconds between two notes
MOST = 128


class Ages:
    """The notes of one machine."""

    __slots__ = ("last", "notes")

    def __init__(self) -> None:
        self.last = 0.0
        self.notes: tuple[tuple[float, int], ...] = ()

    def note(self, now: float, parked: int) -> None:
        """It is `now`, and so many waits have begun."""
        self.last = now
        notes = self.notes
        if notes and notes[-1][1] == parked:
            return  # nothing new: the old note says more
        if len(notes) >= MOST:
            notes = notes[: MOST // 2 : 2] + notes[MOST // 2 :]
        self.notes = (*notes, (now, parked))

    def waited(self, seq: int, now: float) -> float:
        """For how many seconds, at least, the wait with this number has gone on."""
        for when, parked in self.notes:
            if parked >= seq:
                return now - when
        return 0.0
