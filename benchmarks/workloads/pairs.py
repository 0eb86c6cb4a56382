"""Pairs that talk: where the two parties of a conversation live decides what a message costs.

`pingpong`: main starts two goroutines that pass a value back and forth. With two Ps the two should
still be started on one M, where a message costs a switch, and not on two, where it costs a wake-up
of another thread. So procs=2 ought to cost what procs=1 does.

`two-pairs`: the opposite case. Two goroutines compute for some milliseconds, then each starts a pair
of its own and hears from it at the end. They are two independent programs, so without a GIL two Ps ought
to do them at the same time: each driver on an M of its own, each pair on its driver's M. The
computing makes the drivers busy, so that there is a second one for an idle P to take.

`two-parties`, the two-thread story: 100,000 messages back and forth between two parties, as OS threads,
as goroutines (with as many Ps as CPUs, and on one P), as goroutines on two Ms, and as asyncio tasks; the time and the
OS context switches of each message. The goroutines on two Ms are there to show what the scheduler avoids: each
holds its M by computing until the other has started, and as a goroutine stays where it started they
then talk across threads for good.
"""

from benchmarks.workload import Point, Workload


def pair_in_gort(n):
    """Start two goroutines that pass a value back and forth n times; the two Goroutines."""
    from gort import Chan, go

    there, back = Chan(), Chan()

    def ping():
        for i in range(n):
            there.send(i)
            back.recv()
        there.close()

    def pong():
        for i in there:
            back.send(i)

    return go(ping), go(pong)


def pingpong_in_gort(meter, n):
    with meter:
        for goroutine in pair_in_gort(n):
            goroutine.join()


def two_pairs_in_gort(meter, n):
    from gort import go

    def drive():
        total = 0
        for i in range(100_000):  # some 5 ms
            total += i
        for goroutine in pair_in_gort(n // 2):
            goroutine.join()

    with meter:
        for driver in [go(drive), go(drive)]:
            driver.join()


async def pingpong_in_asyncio(meter, n):
    from asyncio import Queue, create_task

    there, back = Queue(), Queue()

    async def ping():
        for i in range(n):
            there.put_nowait(i)
            await back.get()

    async def pong():
        for _ in range(n):
            back.put_nowait(await there.get())

    with meter:
        for task in [create_task(ping()), create_task(pong())]:
            await task


# --- two parties: n is the number of messages, there and back together


def messages_in_gort(meter, n):
    pingpong_in_gort(meter, n // 2)


def messages_on_two_ms(meter, n):
    from threading import get_ident
    from time import monotonic

    from gort import Chan, go

    there, back, threads = Chan(), Chan(), []
    ready, start = Chan(2), Chan()

    def hold():
        """Keep this M busy until the other party has started, which can only be on another M."""
        threads.append(get_ident())
        give_up = monotonic() + 10
        while len(threads) < 2:
            if monotonic() > give_up:
                raise RuntimeError("the second goroutine was not started on another M within 10 s")
        ready.send(None)
        start.recv_ok()

    def ping():
        hold()
        for i in range(n // 2):
            there.send(i)
            back.recv()

    def pong():
        hold()
        for _ in range(n // 2):
            back.send(there.recv())

    parties = [go(ping), go(pong)]
    for _ in parties:
        ready.recv()
    with meter:
        start.close()
        for party in parties:
            party.result()
    if threads[0] == threads[1]:
        raise RuntimeError("the two goroutines ran on one M")


async def messages_in_asyncio(meter, n):
    await pingpong_in_asyncio(meter, n // 2)


def messages_in_threads(meter, n):
    from queue import SimpleQueue
    from threading import Thread

    there, back = SimpleQueue(), SimpleQueue()

    def ping():
        for i in range(n // 2):
            there.put(i)
            back.get()

    def pong():
        for _ in range(n // 2):
            back.put(there.get())

    with meter:
        threads = [Thread(target=ping), Thread(target=pong)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


WORKLOADS = [
    Workload(
        name="pingpong",
        title="a pair that talks",
        story="Main starts two goroutines that pass a value back and forth over unbuffered channels. The question is where "
        "gort puts them, so asyncio's tasks alone stand beside it; what a round trip costs with gevent, trio and threads "
        "is in `unbuffered`.",
        per="round trip",
        points=[Point(50_000)],
        quick=[Point(10_000)],
        gorts=("gort", "gort-p1", "gort-p2"),
        contenders={"gort": pingpong_in_gort, "asyncio": pingpong_in_asyncio},
    ),
    Workload(
        name="two-pairs",
        title="two busy goroutines with a pair each",
        story="Two goroutines compute for some milliseconds, then start a pair of their own that passes a "
        "value back and forth; n round trips in all. The question is whether the pairs spread over the CPUs, which asyncio, "
        "gevent and trio do not have, as all of theirs is in one thread, nor threads, each of which is always on its own.",
        per="round trip",
        points=[Point(100_000)],
        quick=[Point(20_000)],
        gorts=("gort", "gort-p1", "gort-p2"),
        contenders={"gort": two_pairs_in_gort},
    ),
    Workload(
        name="two-parties",
        title="{n} messages between two parties",
        story="The two-thread story: two parties pass a message back and forth. As threads, as goroutines on one P and "
        "on as many as there are CPUs, as goroutines held on two Ms, as asyncio tasks. (Greenlets of gevent and tasks of "
        "trio are in one thread as well, and tell the story of asyncio's once more.)",
        per="message",
        metrics=("time", "switches"),
        points=[Point(100_000)],
        quick=[Point(10_000)],
        repeat=False,
        labels={
            "gort": "goroutines, as gort starts them",
            "gort-p1": "goroutines on one P",
            "gort-2m": "goroutines on two Ms",
            "threading": "OS threads",
        },
        contenders={
            "gort": messages_in_gort,
            "gort-2m": messages_on_two_ms,
            "asyncio": messages_in_asyncio,
            "threading": messages_in_threads,
        },
    ),
]
