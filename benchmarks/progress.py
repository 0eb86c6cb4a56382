"""The line that tells what is running and how long it will still take.

The time left is the sum over the processes still to run of what each took when it last ran. Those
that have not run yet are taken to need the mean of those that have; so from the second round on
the estimate is a measurement. Rounds that will not fit into the run's budget are not counted: they will not be run. It
is written to stderr: on a terminal over one line, again and again; into a file or
a CI's log a line a round, and in between one a minute, for a line a process helps nobody there. Where it can no longer be
written (the reader has gone, the disk is full) nothing more is: the run itself goes on.
"""

import os
import sys
import time


LOG_EVERY = 60.0  # seconds between two lines within a round of a log


class Progress:
    """Counts jobs through rounds. A job is any hashable thing; `label` is what the user reads.

    `budget`: the seconds that the run may take in all, if it is limited.
    """

    def __init__(self, jobs, rounds, stream=None, clock=time.monotonic, budget=None):
        self._jobs = list(jobs)
        self._rounds = rounds
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._cost = {}
        self._end = clock() + budget if budget else float("inf")
        self._done, self._begun = 0, 0  # jobs, and rounds
        self._started = 0.0
        self._round, self._logged = "", 0.0
        self._on_terminal = hasattr(self._stream, "isatty") and self._stream.isatty()

    def start_round(self, number):
        """Round `number`, counted from 0, begins."""
        self._round, self._begun = f"round {number + 1} of {self._rounds}", number + 1
        if not self._on_terminal:
            self._log(f"{len(self._jobs)} processes")

    def _log(self, what):
        left = f", {self._words(self.left())}" if self._cost else ""
        self._print(f"{self._round}: {what}{left}\n")
        self._logged = self._clock()

    def start(self, job, label):
        self._started = self._clock()
        if self._on_terminal:
            total = len(self._jobs) * self._rounds
            self._write(f"{self._done + 1}/{total}  {self._words(self.left())}  {label}")

    def finish(self, job):
        now = self._clock()
        self._cost[job] = now - self._started
        self._done += 1
        if not self._on_terminal and now - self._logged >= LOG_EVERY:
            self._log(f"{job} has run")

    def forget(self, job):
        """That job, the last to finish, will not run again (it has failed): as if it had never been."""
        self._done -= 1 + (self._done - 1) // len(self._jobs)
        self._jobs.remove(job)

    def left(self):
        """Seconds still to go, or None before the first job is done."""
        if not self._cost:
            return None
        mean = sum(self._cost.values()) / len(self._cost)
        costs = [self._cost.get(job, mean) for job in self._jobs]
        if not costs:
            return 0.0
        rounds, within = divmod(self._done, len(costs))
        begun = within > 0 or rounds < self._begun
        this, whole, until_end = sum(costs[within:]) if begun else 0.0, sum(costs), self._end - self._clock()
        more = self._rounds - rounds - begun
        if whole * more > until_end - this:
            more = max(0, int((until_end - this) / whole))
        return max(0.0, min(this + whole * more, until_end))

    def round_cost(self):
        """Seconds that one more round will take."""
        return sum(self._cost.get(job, 0.0) for job in self._jobs)

    def say(self, sentence):
        """Tell something that is to stay."""
        if self._on_terminal:
            self._write("")
        self._print(sentence + "\n")

    def close(self):
        if self._on_terminal:
            self._write("")

    def _write(self, text):
        self._print("\r\x1b[K" + text[: self._width()])

    def _print(self, text):
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None

    def _width(self):
        """What fits on a line of the terminal, which need not be stdout's: that may be a file."""
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError, AttributeError):
            columns = 0
        return (columns or 80) - 1  # some terminals say 0

    @staticmethod
    def _words(seconds):
        if seconds is None:
            return "measuring the time left"
        minutes, seconds = divmod(round(seconds), 60)
        return f"{minutes}:{seconds:02} left"
