"""Work for more than one CPU: pure computation, and C code that drops the GIL.

`compute` runs 2,000 functions of some 0.1 ms of plain Python each. On a free-threaded build the
speed-up from one P to all of them is the question; with a GIL nothing that runs in one process can
gain, and the table shows what the attempt costs.

`hashing` takes the SHA-256 of 1 MiB 256 times. hashlib drops the GIL for a block that long, so two threads
gain on any build. `compressing` does the same with zlib, which drops the GIL for any length. The rivals are what each
library offers for it: a thread pool, or its own way into one
(asyncio's run_in_executor, gevent's thread pool, trio.to_thread). gort runs plain goroutines: it is not
told that the call is long.

The limit is a plain loop in one thread. "A thread for each CPU" has each thread run that loop over its share of the
work, which is the most that the CPUs can give: on a shared machine often less than their number. The pools have as many
threads. Two threads, however many CPUs there are, are what --targets holds procs=2 against.
"""

from benchmarks.workload import Point, Workload, usable_cpus, with_args


def compute():
    total = 0
    for i in range(2_000):
        total += i * i
    return total


_block = bytearray(1 << 20)


def digest():
    from hashlib import sha256

    return sha256(_block).digest()


_text = b"".join(b"%d squared is %d.\n" % (i, i * i) for i in range(5_000))


def compress():
    from zlib import compress

    return compress(_text)


def in_gort(meter, n, work):
    from gort import go

    with meter:
        started = [go(work) for _ in range(n)]
        for goroutine in started:
            goroutine.result()


def in_loop(meter, n, work):
    with meter:
        for _ in range(n):
            work()


async def compute_in_asyncio(meter, n):
    from asyncio import create_task

    async def work():
        compute()

    with meter:
        tasks = [create_task(work()) for _ in range(n)]
        for task in tasks:
            await task


async def c_code_in_asyncio(meter, n, work):
    from asyncio import gather, get_running_loop
    from concurrent.futures import ThreadPoolExecutor

    run_in_executor = get_running_loop().run_in_executor
    with ThreadPoolExecutor(usable_cpus()) as pool, meter:
        await gather(*(run_in_executor(pool, work) for _ in range(n)))


def compute_in_gevent(meter, n):
    import gevent

    with meter:
        gevent.joinall([gevent.spawn(compute) for _ in range(n)])


def c_code_in_gevent(meter, n, work):
    import gevent
    from gevent.threadpool import ThreadPool

    pool = ThreadPool(usable_cpus())
    with meter:
        gevent.joinall([pool.spawn(work) for _ in range(n)])
    pool.kill()


async def c_code_in_trio(meter, n, work):
    import trio

    limiter = trio.CapacityLimiter(usable_cpus())

    async def on_a_thread():
        await trio.to_thread.run_sync(work, limiter=limiter)

    with meter:
        async with trio.open_nursery() as nursery:
            for _ in range(n):
                nursery.start_soon(on_a_thread)


def in_threads(meter, n, work, count=None):
    """A thread for each CPU (or `count` of them), each of which does its share of the work."""
    from threading import Thread

    def share(times):
        for _ in range(times):
            work()

    count = count or usable_cpus()
    shares = [n // count + (place < n % count) for place in range(count)]
    with meter:
        threads = [Thread(target=share, args=(times,)) for times in shares]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def in_pool(meter, n, work):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(usable_cpus()) as pool, meter:
        for future in [pool.submit(work) for _ in range(n)]:
            future.result()


def _procs():
    """gort with 1, 2, 4, ... Ps up to the CPUs, and always with 2."""
    counts = [1, 2]
    while counts[-1] * 2 <= usable_cpus():
        counts.append(counts[-1] * 2)
    return tuple(f"gort-p{count}" for count in counts)


_EITHER = {"gort": in_gort, "bare": in_loop, "threading": in_threads, "pool": in_pool}
_C_CODE = {**_EITHER, "asyncio": c_code_in_asyncio, "gevent": c_code_in_gevent, "trio": c_code_in_trio}
_NOT_TOLD = (
    "The pools are told that the calls are long; gort starts its second machine only when sysmon has seen the first "
    "busy for a while. Threads that have their share of the work from the start have nothing to hand out."
)
_PLAIN = {"bare": "plain loop", "threading": "a thread for each CPU"}


def _two_threads(work):
    return {"two-threads": with_args(in_threads, work=work, count=2)}


WORKLOADS = [
    Workload(
        name="compute",
        title="pure computation",
        story="{n} functions of 0.1 ms of plain Python. The ratio of procs=1 is the speed-up from one P to all CPUs. "
        "Trio is not here: its tasks would compute one after the other, as asyncio's do.",
        per="function",
        points=[Point(2_000)],
        quick=[Point(400)],
        gorts=("gort", *_procs()),
        labels=_PLAIN,
        controls=_two_threads(compute),
        reason="With a GIL nobody computes on two CPUs; what is left is the price of starting a goroutine. Without "
        "one, threads that have their share of the work from the start hand out nothing.",
        contenders={
            **{name: with_args(fn, work=compute) for name, fn in _EITHER.items()},
            "asyncio": compute_in_asyncio,
            "gevent": compute_in_gevent,
        },
    ),
    Workload(
        name="hashing",
        title="SHA-256 of 1 MiB, which drops the GIL",
        story="{n} times the SHA-256 of 1 MiB. hashlib drops the GIL meanwhile; gort is not told so.",
        per="block",
        reason=_NOT_TOLD,
        metrics=("time", "cpu"),
        points=[Point(256)],
        quick=[Point(64)],
        labels=_PLAIN,
        controls=_two_threads(digest),
        contenders={name: with_args(fn, work=digest) for name, fn in _C_CODE.items()},
    ),
    Workload(
        name="compressing",
        title="zlib, which drops the GIL",
        story="{n} times zlib over 124 KB of text. zlib drops the GIL meanwhile; gort is not told so.",
        per="block",
        reason=_NOT_TOLD,
        metrics=("time", "cpu"),
        points=[Point(64)],
        quick=[Point(32)],
        labels=_PLAIN,
        contenders={name: with_args(fn, work=compress) for name, fn in _C_CODE.items()},
    ),
]
