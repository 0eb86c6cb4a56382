"""The scheduler: Go's G, M and P in plain Python.

Read the files in this order; each opens with its own essay and imports only from those above it::

    overdue     the one flag that every runtime call reads: "a slice is over somewhere, look"
    guard       signal handlers and finalizers that interrupt the holder of the scheduler's lock
    wait        tickets, park and ready: how a goroutine waits and is woken, the surface for everything above
    carrying    what carries a goroutine, as everybody else sees it
    timers      a heap of deadlines, one for each P
    sleep       a pause, for goroutines and plain threads
    limits      how many Ps and threads there may be
    chance      random choices, and how GORT_SEED replays them
    report      exceptions that nobody asked for
    goroutine   G: the handle that `go` returns
    gilshare    with a GIL: a shorter turn at it while somebody computes
    ages        for how long a goroutine has waited
    bell        by which a plain thread that waits for I/O is woken
    surplus     machines too many, and when they end
    blocking    a call that may block runs on a spare thread, and its goroutine parks
    departure   without a GIL: many threads that are done end in turn
    processor   P: the right to run goroutines, its local run queue and timers
    thread      a thread at half the price
    ending      how long the end of a program waits for goroutines that do not end
    closing     the end of a runtime: everybody is cancelled, in waves
    apart       a goroutine that is known to block gets a thread to itself
    stealing    fresh goroutines that wait too long move to a P that has nothing to do
    stacks      what every goroutine is doing, as text
    latch       the short lock of the hot paths
    gcyield     a goroutine that ran a garbage collection gives way
    handoff     what happens to a P when a call blocks or occupies its machine; functions that block
    handlers    the exceptions of the program's own signal handlers
    carrier     the greenlet that runs goroutines one after another, and the turn of the local run queue
    poller      what a machine sleeps in: what epoll and kqueue share
    epoll       on Linux
    kqueue      on macOS and the BSDs
    direction   who waits to read from a descriptor, or to write, and how long they may
    netpoll     descriptors: a goroutine that waits for I/O holds no thread
    delivery    how a cancellation reaches a goroutine
    crew        a machine's carriers, and whose turn to start goroutines it is
    alongside   a machine that runs one goroutine apart, without a P
    machine     M: an operating system thread, its hub and how it sleeps
    stats       what the runtime has done, in numbers
    deadlock    the proof that nothing can ever run again
    sysmon      the thread that watches the Ms
    keeping     who sleeps for the timers of a P that nobody holds
    manning     the Ms that there are, and a thread for each
    scheduler   what the Ms share: Ps, idle lists, the global run queue
    plain       a plain thread in a block that can be cancelled
    interrupt   Ctrl-C: KeyboardInterrupt where it belongs
    scope       blocks that can be cancelled, and blocks that cannot
    quit        SIGQUIT prints them
    instance    Runtime, run, go: where all of it is put together
    fork        how the child of a fork forgets all of it

Nothing here knows channels, select or anything else above it.
"""
