"""A request/response server: what a request costs it, with 10 to 5,000 connections.

The server reads what there is on a connection and writes it back, the simplest program of its kind, so what is
left is the cost of waiting, waking, reading and writing. The client is the same process for all (benchmarks/load.py);
its requests are 64 bytes. `server-silent` has a hundred connections that talk beside 5,000 that are open and
say nothing: they ought to cost nothing.

Each library's own way to write a server:

    gort              gort.net.serve, a goroutine for each connection, which reads and writes
    gort-green        the same by hand over gort.green.socket, the twin of the socket module
    asyncio           a Protocol: callbacks, the fastest and least comfortable that asyncio has; the same on uvloop
    asyncio-streams   asyncio's streams, code that reads as gort's does; the same on uvloop
    gevent            StreamServer, a greenlet for each connection
    trio              serve_listeners, a task for each connection
    threading         a thread for each connection; 1,000 at most
    bare              one epoll loop without any scheduler, level-triggered: what Python cannot go below

The client's half that runs in the server's process (`load.drive`) blocks. Each library runs it as it runs
calls that block, so it disturbs none of them. If the client fails, its words are what each of them ends with.
"""

from benchmarks.load import LOCAL, Load, too_many
from benchmarks.workload import Point, Workload, with_args

BACKLOG = 1024
READ = 4096


def in_gort(meter, n, size, silent=0):
    from gort import blocking, go, net

    def echo(conn):
        while data := conn.read():
            conn.write(data)

    with net.listen((LOCAL, 0)) as listener:
        serving = go(net.serve, listener, echo)
        blocking(Load(listener.addr[1], n, size, silent).drive, meter)
    serving.result()


def in_gort_green(meter, n, size, silent=0):
    from gort import blocking, go
    from gort.green import socket

    def echo(connection):
        with connection:
            while data := connection.recv(READ):
                connection.sendall(data)

    def accept():
        while True:
            go(echo, listener.accept()[0])

    with socket.create_server((LOCAL, 0), backlog=BACKLOG) as listener:
        accepting = go(accept)
        try:
            blocking(Load(listener.getsockname()[1], n, size, silent).drive, meter)
        finally:
            accepting.cancel()
            accepting.join()


def in_bare(meter, n, size, silent=0):
    import select
    import socket
    from concurrent.futures import ThreadPoolExecutor

    listener = socket.create_server((LOCAL, 0), backlog=BACKLOG)
    listener.setblocking(False)
    ended, end = socket.socketpair()
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    epoll.register(ended.fileno(), select.EPOLLIN)
    connections = {}

    load = Load(listener.getsockname()[1], n, size, silent)
    driving = ThreadPoolExecutor(1).submit(load.drive, meter)
    driving.add_done_callback(lambda _: end.close())
    while True:
        for fd, _ in epoll.poll():
            connection = connections.get(fd)
            if connection is not None:
                if data := connection.recv(READ):
                    connection.send(data)  # no more than a request, so it is written whole
                else:
                    del connections[fd]
                    connection.close()
            elif fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setblocking(False)
                connections[connection.fileno()] = connection
                epoll.register(connection.fileno(), select.EPOLLIN)
            else:
                return driving.result()


async def in_asyncio(meter, n, size, silent=0):
    from asyncio import Protocol, get_running_loop, to_thread

    class Echo(Protocol):
        def connection_made(self, transport):
            self.write = transport.write

        def data_received(self, data):
            self.write(data)

    server = await get_running_loop().create_server(Echo, LOCAL, 0, backlog=BACKLOG)
    async with server:
        await to_thread(Load(server.sockets[0].getsockname()[1], n, size, silent).drive, meter)


async def in_streams(meter, n, size, silent=0):
    from asyncio import start_server, to_thread

    async def echo(reader, writer):
        while data := await reader.read(READ):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await start_server(echo, LOCAL, 0, backlog=BACKLOG)
    async with server:
        await to_thread(Load(server.sockets[0].getsockname()[1], n, size, silent).drive, meter)


def in_gevent(meter, n, size, silent=0):
    import gevent
    from gevent.server import StreamServer

    def echo(connection, _address):
        while data := connection.recv(READ):
            connection.sendall(data)

    server = StreamServer((LOCAL, 0), echo, backlog=BACKLOG)
    server.start()
    gevent.get_hub().threadpool.apply(Load(server.server_port, n, size, silent).drive, (meter,))
    server.stop()


async def in_trio(meter, n, size, silent=0):
    import trio

    async def echo(stream):
        async for data in stream:
            await stream.send_all(data)

    listeners = await trio.open_tcp_listeners(0, host=LOCAL, backlog=BACKLOG)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        port = listeners[0].socket.getsockname()[1]
        await trio.to_thread.run_sync(Load(port, n, size, silent).drive, meter)
        nursery.cancel_scope.cancel()


def in_threads(meter, n, size, silent=0):
    import socket
    from threading import Thread

    def echo(connection):
        with connection:
            while data := connection.recv(READ):
                connection.sendall(data)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            Thread(target=echo, args=(connection,), daemon=True).start()

    listener = socket.create_server((LOCAL, 0), backlog=BACKLOG)
    accepting = Thread(target=accept)
    accepting.start()
    try:
        Load(listener.getsockname()[1], n, size, silent).drive(meter)
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # close alone would not wake the thread
        listener.close()
        accepting.join()


_ALL = {
    "gort": in_gort,
    "gort-green": in_gort_green,
    "bare": in_bare,
    "asyncio": in_asyncio,
    "asyncio-streams": in_streams,
    "gevent": in_gevent,
    "trio": in_trio,
    "threading": in_threads,
}
SILENT = 5_000
REASON = (
    "uvloop is C, its Protocol has no stack to switch, and the epoll loop has no scheduler at all. gort's poller, "
    "scheduler and connection are Python: beside recv and send each request costs a park and a wake-up. A thread that "
    "waits in recv is woken by the kernel alone, which shows in the latencies. asyncio's Protocol is Python too, but a "
    "request is a callback there, with nobody to wake: that is ahead in the latencies, and in CPU time about level."
)
LABELS = {"bare": "bare epoll loop", "asyncio": "asyncio Protocol", "uvloop": "uvloop Protocol"}

WORKLOADS = [
    Workload(
        name="server",
        title="request/response server",
        story="A server sends each request of 64 bytes back; the client is the same for all. The CPU time and the rate "
        "are those of a loop in which each connection always has one request under way; the latencies are those of "
        "2,000 requests a second, which leaves each of them idle most of the time.",
        per="request",
        axis="connections",
        metrics=("cpu", "rate", "p50", "p99"),
        reason=REASON,
        points=[Point(10_000, 10), Point(10_000, 100), Point(10_000, 1_000), Point(10_000, 5_000)],
        quick=[Point(4_000, 10), Point(4_000, 100)],
        caps={"threading": 1_000},
        capped={1_000: "with 5,000 threads a request takes a millisecond, and a round a quarter of a minute"},
        warm=lambda point: None,
        repeat=False,
        needs=lambda point: too_many(point.size),
        labels=LABELS,
        contenders=_ALL,
    ),
    Workload(
        name="server-silent",
        title="the same server with 5,000 silent connections",
        story="100 connections that talk, as above, beside 5,000 that are open and say nothing. Trio waits for connections "
        "as asyncio does, so one of the two will do; 5,000 threads are more than a machine does well.",
        per="request",
        metrics=("cpu", "rate", "p50", "p99"),
        reason=REASON,
        points=[Point(10_000, 100)],
        quick=[Point(4_000, 100)],
        warm=lambda point: None,
        repeat=False,
        needs=lambda point: too_many(SILENT + point.size),
        labels=LABELS,
        contenders={name: with_args(_ALL[name], silent=SILENT) for name in ("gort", "bare", "asyncio", "gevent")},
    ),
]
