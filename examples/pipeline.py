"""A pipeline: fan-out, fan-in, and a select that does not wait for ever.

    python examples/pipeline.py

                   /--> square --\\
    count_to(20) -+---> square ---+-> merge --> main
                   \\--> square --/

A stage is a function that starts a goroutine and returns the channel of its results. Whoever sends on a channel
closes it, so every stage can loop over its source with `for` and knows when it is over.

One of the numbers is made to be trouble: its square takes a minute. main would rather have most of the answers now.
"""

import argparse
import sys
from contextlib import closing

import gort

TROUBLE = 13


def count_to(last: int) -> gort.Chan[int]:
    """The source: 1, 2, ... last."""
    numbers: gort.Chan[int] = gort.Chan()

    def count() -> None:
        with closing(numbers):
            for number in range(1, last + 1):
                numbers.send(number)  # waits until somebody takes it: the source is never ahead of its readers

    gort.go(count)
    return numbers


def square(numbers: gort.Chan[int]) -> gort.Chan[tuple[int, int]]:
    """A worker. Several may read one channel (fan-out): each number goes to exactly one of them, whoever is free."""
    squares: gort.Chan[tuple[int, int]] = gort.Chan()

    def work() -> None:
        with closing(squares):
            for number in numbers:
                if number == TROUBLE:
                    gort.sleep(60)  # this worker waits; its thread does not, it runs the others
                squares.send((number, number * number))

    gort.go(work)
    return squares


def merge(*sources: gort.Chan[tuple[int, int]]) -> gort.Chan[tuple[int, int]]:
    """Fan-in: all that comes from any of the sources, as one channel. It is closed when the last of them is."""
    merged: gort.Chan[tuple[int, int]] = gort.Chan()

    def copy(source: gort.Chan[tuple[int, int]]) -> None:
        for item in source:
            merged.send(item)

    copies = [gort.go(copy, source) for source in sources]

    def close_after_the_last() -> None:
        with closing(merged):
            for each in copies:
                each.join()

    gort.go(close_after_the_last)
    return merged


def pipeline(patience: float) -> None:
    """The main goroutine: the end of the pipe."""
    numbers = count_to(20)
    squares = merge(square(numbers), square(numbers), square(numbers))

    answers: dict[int, int] = {}
    while True:
        # The case that is ready first wins. after() gives a channel on which one value comes after so many seconds:
        # a time-out is a case like any other. A fresh one each time round bounds the silence between two answers; one
        # made before the loop would bound the whole. (Shorter: select(..., timeout=patience) raises TimeoutError.)
        case, item, ok = gort.select(gort.recv(squares), gort.recv(gort.after(patience)))
        if case == 1:
            print(f"no answer for {patience:g} seconds, so I go on without the rest")
            break
        if not ok:  # closed, and nothing left in it: that was all
            break
        number, result = item
        answers[number] = result

    # The answers came in any order: three workers, and the quickest first.
    for number in sorted(answers):
        print(f"{number} x {number} = {answers[number]}")
    missing = sorted(set(range(1, 21)) - set(answers))
    print("missing:", *missing or ["none"])
    # The worker that sleeps is no concern of ours: when the main goroutine returns, the others are cancelled.


def main() -> int:
    parser = argparse.ArgumentParser(prog="pipeline", description="Square the numbers to 20, those that come in time.")
    parser.add_argument("--patience", metavar="S", type=float, default=0.5, help="seconds to wait for an answer (0.5)")
    parser.add_argument("--procs", metavar="P", type=int, help="threads that run goroutines at a time")
    args = parser.parse_args()
    if args.procs is not None and args.procs < 1:
        parser.error(f"--procs is {args.procs}; it must be 1 or more")
    try:
        gort.run(pipeline, args.patience, procs=args.procs)
    except gort.ThreadLimit as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
