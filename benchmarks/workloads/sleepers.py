"""Sleepers: 30,000 goroutines that all sleep half a second, from the first start to the last join.

The whole is timed, so half a second of it is the same for everybody. What lies above it is the cost
to start the goroutines, to put each into the timers and take it out again, and to end them. The
part of it that is work shows in the CPU time beside it.

All sleep equally long, so the wake-ups come in one wave as long as the starts took: a runtime that
starts them slowly is not made to look better, for its last sleeper starts late.

Threads cannot do that many, so they have a workload of their own with a fifteenth.
"""

from benchmarks.workload import Point, Workload


def in_gort(meter, n, size):
    from gort import go, sleep

    with meter:
        started = [go(sleep, size) for _ in range(n)]
        for goroutine in started:
            goroutine.join()


async def in_asyncio(meter, n, size):
    from asyncio import create_task, sleep

    with meter:
        tasks = [create_task(sleep(size)) for _ in range(n)]
        for task in tasks:
            await task


def in_gevent(meter, n, size):
    import gevent

    with meter:
        gevent.joinall([gevent.spawn(gevent.sleep, size) for _ in range(n)])


async def in_trio(meter, n, size):
    import trio

    with meter:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(trio.sleep, size)


def in_threads(meter, n, size):
    from threading import Thread
    from time import sleep

    with meter:
        threads = [Thread(target=sleep, args=(size,)) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _short(point):
    """Few sleepers and a short sleep: a warm-up warms the code, and need not wait."""
    return Point(min(point.n, 200), 0.001)


WORKLOADS = [
    Workload(
        name="sleepers",
        title="n asleep at once",
        story="Start {n} goroutines that sleep {size} s each, then wait for all of them; the whole is timed. "
        "Threads cannot do that many: see `sleeping-threads`.",
        per=None,
        metrics=("time", "cpu"),
        paced=("time",),
        reason="In a profile half of the CPU time is the kernel's, which maps and fills the pages of 30,000 stacks and "
        "takes them back; a coroutine has none. The other half is gort's Python (go, sleep, join), about as much as all "
        "of asyncio's; the garbage collector has a tenth.",
        points=[Point(30_000, 0.5)],
        quick=[Point(10_000, 0.25)],
        warm=_short,
        repeat=False,
        contenders={
            "gort": in_gort,
            "asyncio": in_asyncio,
            "gevent": in_gevent,
            "trio": in_trio,
        },
    ),
    Workload(
        name="sleeping-threads",
        title="{n} asleep at once, with threads",
        story="The same with as many as threads do well: {n} for {size} s; the other libraries are in `sleepers`.",
        per=None,
        metrics=("time", "cpu"),
        paced=("time",),
        points=[Point(2_000, 0.5)],
        quick=[Point(1_000, 0.25)],
        warm=_short,
        repeat=False,
        contenders={"gort": in_gort, "threading": in_threads},
    ),
]
