"""The line that tells what is running and how long it will still take.

The time left is the sum over the processes still to run of what each took when it last ran. Those
that have not run yet are taken to need the mean of those that have; so from the second round on
the estimate is a measurement. It is written to stderr: on a terminal over one line, again and again; into a file or
a CI's log a line a round, and in between one a minute, for a line a process helps nobody there.
"""

import os
import sys
import time


LOG_EVERY = 60.0  # seconds between two lines within a round of a log


class Progress:
    """Counts jobs through rounds. A job is any hashable thing; `label` is what the user reads."""

    def __init__(self, jobs, rounds, stream=None, clock=time.monotonic):
        self._jobs = list(jobs)
        self._rounds = rounds
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._cost = {}
        self._done = 0
        self._started = 0.0
        self._round, self._logged = "", 0.0
        self._on_terminal = hasattr(self._stream, "isatty") and self._stream.isatty()

    def start_round(self, number):
        """Round `number`, counted from 0, begins."""
        self._round = f"round {number + 1} of {self._rounds}"
        if not self._on_terminal:
            self._log(f"{len(self._jobs)} processes")

    def _log(self, what):
        left = f", {self._words(self.left())}" if self._cost else ""
        print(f"{self._round}: {what}{left}", file=self._stream, flush=True)
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
        """That job will not run again (it has failed)."""
        self._jobs.remove(job)

    def left(self):
        """Seconds still to go, or None before the first job is done."""
        if not self._cost:
            return None
        mean = sum(self._cost.values()) / len(self._cost)
        costs = [self._cost.get(job, mean) for job in self._jobs]
        rounds, within = divmod(self._done, len(costs)) if costs else (self._rounds, 0)
        return max(0.0, sum(costs) * (self._rounds - rounds - 1) + sum(costs[within:]))

    def round_cost(self):
        """Seconds that one more round will take."""
        return sum(self._cost.get(job, 0.0) for job in self._jobs)

    def close(self):
        if self._on_terminal:
            self._write("")

    def _write(self, text):
        self._stream.write("\r\x1b[K" + text[: self._width()])
        self._stream.flush()

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
