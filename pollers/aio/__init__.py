"""Linux AIO: io_setup(2) and its family (not io_uring).

abi.py      numbers and memory layouts
context.py  one context: set up, submit, reap, cancel, destroy
slots.py    the control blocks of the poller, and who owns them
poller.py   the Poller on IOCB_CMD_POLL
disk.py     direct reads of files; reads.py what is asked and what came of it, direct.py the file,
            buffers.py the aligned memory
"""
