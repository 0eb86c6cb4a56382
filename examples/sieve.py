"""The concurrent prime sieve: a chain of goroutines, one for each prime found so far.

    python examples/sieve.py 10

The first goroutine sends 2, 3, 4, ... down the chain. Each filter takes one prime's multiples out and passes on the
rest, so the first number that comes out at the far end is the next prime, and it gets a filter of its own:

    count_up --> without multiples of 2 --> of 3 --> of 5 --> the next prime

It is no fast way to find primes: a number crosses a channel for every filter that it passes. It shows how little a
goroutine and an unbuffered channel cost, and that a program may be a chain of a thousand of them. The filters never
end by themselves: when the main goroutine has printed its primes, gort.run() cancels the others.
"""

import argparse
import itertools
import signal
import sys

import gort


def count_up(numbers: gort.Chan[int]) -> None:
    for number in itertools.count(2):
        numbers.send(number)


def strain(prime: int, source: gort.Chan[int], rest: gort.Chan[int]) -> None:
    for number in source:
        if number % prime:
            rest.send(number)


def sieve(count: int) -> None:
    """The main goroutine: take a prime from the chain's end, then make the chain one filter longer."""
    numbers: gort.Chan[int] = gort.Chan()
    gort.go(count_up, numbers)
    for _ in range(count):
        prime = numbers.recv()
        print(prime)
        rest: gort.Chan[int] = gort.Chan()
        gort.go(strain, prime, numbers, rest)
        numbers = rest


def main() -> int:
    parser = argparse.ArgumentParser(prog="sieve", description="Print the first N primes.")
    parser.add_argument("count", metavar="N", type=int, nargs="?", default=100, help="how many primes (100)")
    parser.add_argument("--procs", metavar="P", type=int, help="threads that run goroutines at a time")
    args = parser.parse_args()
    if args.count < 0:
        parser.error(f"the number of primes is {args.count}; it must be 0 or more")
    if args.procs is not None and args.procs < 1:
        parser.error(f"--procs is {args.procs}; it must be 1 or more")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `sieve.py 1000 | head`: end as quietly as other filters do
    try:
        gort.run(sieve, args.count, procs=args.procs)
    except gort.ThreadLimit as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
