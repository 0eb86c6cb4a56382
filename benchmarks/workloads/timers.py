"""Timers: 10^5 of them set and stopped again, and those that fire.

Most timers in a real program are time-outs that never fire: set, then stopped. So `timers` sets n of
them, a minute ahead at scattered deadlines, and stops all: the cost of the structure that holds them
while it is full.

`timers-fire` sets n timers whose deadlines are scattered over a window that begins when all are set,
and measures how far from its deadline each is called, as a distribution; the CPU time for each timer is the
price. The wall-clock time is the window's and says nothing, so it is not shown. The window is wide enough for
most contenders to keep up (25 timers a millisecond): one that cannot shows it by a median that is far
above a millisecond. Some loops count in whole milliseconds and call a part of their timers too early; that is
a distance too, and how many they are is shown beside it.

What each library calls a timer:

    gort       after_func, a goroutine of its own for each that fires
    asyncio    loop.call_later, a callback in the loop (no task: less than the others do)
    gevent     Timeout for those that are stopped, spawn_later for those that fire
    trio       has none: a task that sleeps; its time-outs are scopes, which cannot be set side by side
    threading  Timer, a thread for each, so only the first thousand
"""

from benchmarks.workload import Point, Workload

# --- set and stop


def _scattered(n, first, window):
    """n delays scattered evenly over a window, the same for every contender and every run."""
    import random

    delays = [first + window * i / n for i in range(n)]
    random.Random(1).shuffle(delays)
    return delays


def stop_in_gort(meter, n):
    from gort import after_func

    delays = _scattered(n, 60, 60)
    with meter:
        for timer in [after_func(delay, print) for delay in delays]:
            timer.stop()


async def stop_in_asyncio(meter, n):
    from asyncio import get_running_loop

    delays = _scattered(n, 60, 60)
    call_later = get_running_loop().call_later
    with meter:
        for handle in [call_later(delay, print) for delay in delays]:
            handle.cancel()


def stop_in_gevent(meter, n):
    from gevent import Timeout

    delays = _scattered(n, 60, 60)
    with meter:
        for timeout in [Timeout.start_new(delay) for delay in delays]:
            timeout.close()


def stop_in_threads(meter, n):
    from threading import Timer

    delays = _scattered(n, 60, 60)
    with meter:
        timers = [Timer(delay, print) for delay in delays]
        for timer in timers:
            timer.start()
        for timer in timers:
            timer.cancel()
    # That a thread ends takes its time after cancel; the other's stop has nothing like it, and nobody waits for it.
    for timer in timers:
        timer.join()


# --- fire


def fire_in_gort(meter, n, size):
    from time import perf_counter

    from gort import Chan, after_func

    delays, late, done = _scattered(n, size / 2, size), meter.latencies, Chan(1)

    def fire(due):
        late.append(perf_counter() - due)
        if len(late) == n:
            done.try_send(None)

    with meter:
        for delay in delays:
            after_func(delay, fire, perf_counter() + delay)
        done.recv()


async def fire_in_asyncio(meter, n, size):
    from asyncio import Event, get_running_loop
    from time import perf_counter

    delays, late, done = _scattered(n, size / 2, size), meter.latencies, Event()
    call_later = get_running_loop().call_later

    def fire(due):
        late.append(perf_counter() - due)
        if len(late) == n:
            done.set()

    with meter:
        for delay in delays:
            call_later(delay, fire, perf_counter() + delay)
        await done.wait()


def fire_in_gevent(meter, n, size):
    from time import perf_counter

    from gevent import spawn_later
    from gevent.event import Event

    delays, late, done = _scattered(n, size / 2, size), meter.latencies, Event()

    def fire(due):
        late.append(perf_counter() - due)
        if len(late) == n:
            done.set()

    with meter:
        for delay in delays:
            spawn_later(delay, fire, perf_counter() + delay)
        done.wait()


async def fire_in_trio(meter, n, size):
    from time import perf_counter

    import trio

    delays, late = _scattered(n, size / 2, size), meter.latencies

    async def fire(due, deadline):
        await trio.sleep_until(deadline)
        late.append(perf_counter() - due)

    with meter:
        async with trio.open_nursery() as nursery:
            for delay in delays:
                # The deadline is set here, as the others' is: a delay would run from when the task first runs.
                nursery.start_soon(fire, perf_counter() + delay, trio.current_time() + delay)


def fire_in_threads(meter, n, size):
    from threading import Event, Timer
    from time import perf_counter

    delays, late, done = _scattered(n, size / 2, size), meter.latencies, Event()

    def fire(due):
        late.append(perf_counter() - due)
        if len(late) == n:
            done.set()

    with meter:
        for delay in delays:
            Timer(delay, fire, (perf_counter() + delay,)).start()
        done.wait()


_FIRED = ("cpu", "p50", "p99", "early")
_DISTANCE = {
    "p50": "distance from the deadline, median",
    "p99": "distance from the deadline, 99th percentile",
    "early": "share called before the deadline",
}


def _short(point):
    return Point(min(point.n, 200), 0.005)


WORKLOADS = [
    Workload(
        name="timers",
        title="set and stop n timers",
        story="Set {n} timers at scattered deadlines a minute ahead, then stop all of them. Trio is not here, for its "
        "time-outs are scopes, which cannot be set side by side; threads cannot do that many: see `timer-threads`.",
        per="timer",
        reason="asyncio's timer is a callback in its loop's heap, to be touched from the loop's thread only. "
        "gort's may be stopped and set again from any thread, so its heap has a lock, and will start a goroutine, so each "
        "keeps a copy of the context and the place of the call: all in Python. In a profile the heap is two fifths, and "
        "making the timer nearly all of the rest.",
        points=[Point(100_000)],
        quick=[Point(20_000)],
        contenders={"gort": stop_in_gort, "asyncio": stop_in_asyncio, "gevent": stop_in_gevent},
    ),
    Workload(
        name="timers-fire",
        title="n timers that fire",
        story="Set {n} timers whose deadlines are scattered over {size} s, and see how far from its own each is called, "
        "too late or too early. Threads cannot do that many: see `timer-threads-fire`.",
        per="timer",
        metrics=_FIRED,
        paced=("p50", "p99"),
        headings=_DISTANCE,
        reason="gort's thread sleeps until the very deadline of each timer, where the loops of asyncio and uvloop count "
        "whole milliseconds and wake once for all that are due in one: see the distances. That is most of the CPU time; "
        "when all are due at once a timer costs a third of it. And a timer that fires starts a goroutine, where "
        "asyncio's only calls a function in its loop.",
        points=[Point(12_500, 0.5)],
        quick=[Point(5_000, 0.2)],
        warm=_short,
        repeat=False,
        contenders={
            "gort": fire_in_gort,
            "asyncio": fire_in_asyncio,
            "gevent": fire_in_gevent,
            "trio": fire_in_trio,
        },
    ),
    Workload(
        name="timer-threads",
        title="set and stop {n} timers, with threads",
        story="The first of the two with as many as threading.Timer, a thread for each, can do; the other libraries are "
        "in `timers`.",
        per="timer",
        points=[Point(1_000)],
        quick=[Point(200)],
        contenders={"gort": stop_in_gort, "threading": stop_in_threads},
    ),
    Workload(
        name="timer-threads-fire",
        title="{n} timers that fire, with threads",
        story="The second of the two with as many as threading.Timer can do; the other libraries are in `timers-fire`.",
        per="timer",
        metrics=_FIRED,
        paced=("p50", "p99"),
        headings=_DISTANCE,
        points=[Point(1_000, 0.25)],
        quick=[Point(200, 0.1)],
        warm=_short,
        repeat=False,
        contenders={"gort": fire_in_gort, "threading": fire_in_threads},
    ),
]
