"""Calls that block: those the program announces, and those that nobody announced.

`blocking` is the price of announcing: the round trip of a call handed to a thread that may block in it. The call
does nothing, so what is left is the way there and back. With one caller that is pure latency; with 16 callers a
library may have many under way at once. The rivals are each library's own way to a thread, and a
plain ThreadPoolExecutor used from a thread (from 16 of them).

`unannounced` is what happens to a program when somebody forgot to announce: goroutines call the plain time.sleep,
which stands for a driver written in C, a look-up or a lock of the file system. Beside them beats a heart, a
goroutine that sleeps 10 ms again and again; the longest gap between two beats is what a user of that program
would have felt. asyncio, gevent and trio can do nothing about it: the calls come one after the other and the heart
stands still for all of them (they are measured unpatched: what a monkey patch reaches is announced). Threads
do it for free, at a thread for each. `unannounced-again` is the same once more in the same
program: a runtime may have learnt from the first time.
"""

from benchmarks.workload import Point, Workload


def nothing():
    pass


# --- announced: size callers, n calls in all


def announced_in_gort(meter, n, size):
    from gort import blocking, go

    def call():
        for _ in range(n // size):
            blocking(nothing)

    with meter:
        started = [go(call) for _ in range(size)]
        for goroutine in started:
            goroutine.result()


async def announced_in_asyncio(meter, n, size):
    from asyncio import create_task, get_running_loop

    # to_thread costs a little more: it copies the context for each call.
    run_in_executor = get_running_loop().run_in_executor

    async def call():
        for _ in range(n // size):
            await run_in_executor(None, nothing)

    with meter:
        for task in [create_task(call()) for _ in range(size)]:
            await task


def announced_in_gevent(meter, n, size):
    import gevent

    apply = gevent.get_hub().threadpool.apply

    def call():
        for _ in range(n // size):
            apply(nothing)

    with meter:
        gevent.joinall([gevent.spawn(call) for _ in range(size)])


async def announced_in_trio(meter, n, size):
    import trio

    async def call():
        for _ in range(n // size):
            await trio.to_thread.run_sync(nothing)

    with meter:
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(call)


def announced_in_pool(meter, n, size):
    from concurrent.futures import ThreadPoolExecutor
    from threading import Thread

    with ThreadPoolExecutor() as pool:

        def call():
            for _ in range(n // size):
                pool.submit(nothing).result()

        with meter:
            threads = [Thread(target=call) for _ in range(size)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


# --- unannounced: n sleepers of `size` seconds beside a heart

BEAT = 0.01


class Heart:
    """Beats beside the sleepers, in a goroutine, task or thread of its own, until `ended` is set."""

    def __init__(self):
        self.beats = []
        self.ended = False

    def run(self, sleep):
        while self._beat():
            sleep(BEAT)

    async def run_async(self, sleep):
        while self._beat():
            await sleep(BEAT)

    def _beat(self):
        from time import perf_counter

        ended = self.ended  # first: the beat after the end is the last
        self.beats.append(perf_counter())
        return not ended

    def gap(self):
        """The longest time between two beats."""
        return max(later - earlier for earlier, later in zip(self.beats, self.beats[1:]))


def unannounced_in_gort(meter, n, size):
    import time

    from gort import go, sleep

    heart = Heart()
    beating = go(heart.run, sleep)
    sleep(3 * BEAT)
    with meter:
        started = [go(time.sleep, size) for _ in range(n)]
        for goroutine in started:
            goroutine.result()
    heart.ended = True
    beating.join()
    meter.gap = heart.gap()


async def unannounced_in_asyncio(meter, n, size):
    import time
    from asyncio import create_task, sleep

    async def sleeper():
        time.sleep(size)

    heart = Heart()
    beating = create_task(heart.run_async(sleep))
    await sleep(3 * BEAT)
    with meter:
        for task in [create_task(sleeper()) for _ in range(n)]:
            await task
    heart.ended = True
    await beating
    meter.gap = heart.gap()


def unannounced_in_gevent(meter, n, size):
    import time

    import gevent

    heart = Heart()
    beating = gevent.spawn(heart.run, gevent.sleep)
    gevent.sleep(3 * BEAT)
    with meter:
        gevent.joinall([gevent.spawn(time.sleep, size) for _ in range(n)])
    heart.ended = True
    beating.join()
    meter.gap = heart.gap()


async def unannounced_in_trio(meter, n, size):
    import time

    import trio

    async def sleeper():
        time.sleep(size)

    heart = Heart()
    async with trio.open_nursery() as hearts:
        hearts.start_soon(heart.run_async, trio.sleep)
        await trio.sleep(3 * BEAT)
        with meter:
            async with trio.open_nursery() as nursery:
                for _ in range(n):
                    nursery.start_soon(sleeper)
        heart.ended = True
    meter.gap = heart.gap()


def unannounced_in_threads(meter, n, size):
    import time
    from threading import Thread

    heart = Heart()
    beating = Thread(target=heart.run, args=(time.sleep,))
    beating.start()
    time.sleep(3 * BEAT)
    with meter:
        threads = [Thread(target=time.sleep, args=(size,)) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    heart.ended = True
    beating.join()
    meter.gap = heart.gap()


def again_in_gort(meter, n, size):
    from benchmarks.meter import Meter

    unannounced_in_gort(Meter(), n, size)
    unannounced_in_gort(meter, n, size)


WORKLOADS = [
    Workload(
        name="blocking",
        title="round trip of a call on another thread",
        story="A function that does nothing, run where it might block, by 1 and by 16 callers: gort.blocking, "
        "run_in_executor, gevent's and trio's threads, and a thread pool used from threads (which is how threads are here: "
        "a call on a thread of its own is in `spawn`).",
        per="call",
        axis="callers",
        metrics=("time", "cpu"),
        points=[Point(5_000, 1), Point(5_000, 16)],
        quick=[Point(2_000, 1), Point(2_000, 16)],
        reason="uvloop's loop is C, and a thread that hands a call to another thread and waits has no scheduler between "
        "them. gort's way there and back is Python: a park, and a wake-up from another thread.",
        contenders={
            "gort": announced_in_gort,
            "asyncio": announced_in_asyncio,
            "gevent": announced_in_gevent,
            "trio": announced_in_trio,
            "pool": announced_in_pool,
        },
    ),
    Workload(
        name="unannounced",
        title="{n} blocking calls that nobody announced",
        story="{n} goroutines call the plain time.sleep({size}) while another beats every 10 ms: the time until all "
        "have returned ({n} times as long if one after the other), and the longest gap between two beats.",
        per=None,
        metrics=("time", "gap"),
        paced=("time", "gap"),
        points=[Point(50, 0.02)],
        quick=[Point(20, 0.02)],
        warm=lambda point: Point(1, 0.0),
        repeat=False,
        reason="A thread for each call blocks nobody. gort starts them too, once it has seen that a "
        "machine is stuck.",
        contenders={
            "gort": unannounced_in_gort,
            "asyncio": unannounced_in_asyncio,
            "gevent": unannounced_in_gevent,
            "trio": unannounced_in_trio,
            "threading": unannounced_in_threads,
        },
    ),
    Workload(
        name="unannounced-again",
        title="{n} blocking calls that nobody announced, for the second time",
        story="The same in a program that has done it before, so that gort may know the function. "
        "Threads do not learn: theirs is the same program as above. Nor do asyncio, gevent and trio, in which nothing "
        "but announcing helps: they are in `unannounced`.",
        per=None,
        metrics=("time", "gap"),
        paced=("time", "gap"),
        points=[Point(50, 0.02)],
        quick=[Point(20, 0.02)],
        warm=lambda point: Point(1, 0.0),
        repeat=False,
        reason="A thread for each call blocks nobody, and starts with nothing but the system's scheduler.",
        contenders={"gort": again_in_gort, "threading": unannounced_in_threads},
    ),
]
