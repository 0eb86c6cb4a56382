"""Spawn and join: what it costs to start something that ends at once, and to see that it ended.

All n are started before the first is waited for, so n of them exist at the same time, and the
number is also the axis: a runtime is only as good as its cost at a million is close to its cost at a
thousand. A sequential loop of start-and-join was refused, for it measures the switch to one task and
back and hides what a long queue costs.

Threads get as far as a process may have threads alive, so they are started and joined a hundred
at a time; that is the kindest way for them.
"""

from benchmarks.workload import Point, Workload


def nothing():
    pass


def in_gort(meter, n):
    from gort import go

    with meter:
        started = [go(nothing) for _ in range(n)]
        for goroutine in started:
            goroutine.join()


def in_bare(meter, n):
    from greenlet import greenlet

    with meter:
        for made in [greenlet(nothing) for _ in range(n)]:
            made.switch()


async def in_asyncio(meter, n):
    from asyncio import create_task

    async def nothing():
        pass

    # A TaskGroup costs nearly twice as much for each task.
    with meter:
        started = [create_task(nothing()) for _ in range(n)]
        for task in started:
            await task


def in_gevent(meter, n):
    import gevent

    with meter:
        gevent.joinall([gevent.spawn(nothing) for _ in range(n)])


async def in_trio(meter, n):
    import trio

    async def nothing():
        pass

    with meter:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(nothing)


def in_threads(meter, n):
    from threading import Thread

    with meter:
        for first in range(0, n, 100):
            started = [Thread(target=nothing) for _ in range(min(100, n - first))]
            for thread in started:
                thread.start()
            for thread in started:
                thread.join()


def in_pool(meter, n):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool, meter:
        for future in [pool.submit(nothing) for _ in range(n)]:
            future.result()


WORKLOADS = [
    Workload(
        name="spawn",
        title="spawn and join",
        story="Start n functions that return at once, then wait for each of them. (A bare greenlet is made anew "
        "for each; a runtime may use finished ones again.)",
        per="goroutine",
        axis="goroutines",
        points=[Point(1_000), Point(10_000), Point(100_000), Point(1_000_000)],
        quick=[Point(1_000), Point(10_000)],
        # The last point is about gort's own cost, which ought to stay level.
        caps={
            "threading": 10_000,
            **dict.fromkeys(("bare", "gort-p1", "asyncio", "uvloop", "gevent", "trio", "pool"), 100_000),
        },
        capped={
            10_000: "100,000 threads take as long as all others together, and show nothing new",
            100_000: "a million shows whether gort's cost stays level; the others would take most of the run's time",
        },
        bytes_each=2_000,
        contenders={
            "gort": in_gort,
            "bare": in_bare,
            "asyncio": in_asyncio,
            "gevent": in_gevent,
            "trio": in_trio,
            "threading": in_threads,
            "pool": in_pool,
        },
    )
]
