"""Linux AIO: io_setup(2) and its family (not io_uring).

abi.py      numbers and memory layouts
context.py  one context: set up, submit, reap, cancel, destroy
slots.py    the control blocks of the poller, and who owns them
arming.py   their way to the kernel and back
poller.py   the Poller on IOCB_CMD_POLL
sockets.py  batches of socket reads and writes, through a context of their own or the poller's
ring.py     completions without a system call, where the machine allows it
eventfd.py  completions in any loop
disk.py     direct reads of files; reads.py what is asked and what came of it, direct.py the file,
            diskslots.py the control blocks, buffers.py the aligned memory, counters.py what it
            cost, whole.py reads of any length
cached.py   the page cache first
on_asyncio.py, on_trio.py   reads to be awaited; hosted.py what the two have in common
bulk.py     many reads at once, as arrays; flight.py those under way, prepared.py their control
            blocks, places.py which aligned reads they are, single.py reads one after another
probe.py    whether direct reads in a directory are asynchronous
"""
