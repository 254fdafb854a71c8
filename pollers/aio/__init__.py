"""Linux AIO: io_setup(2) and its family (not io_uring).

abi.py      numbers and memory layouts
context.py  one context: set up, submit, reap, cancel, destroy
slots.py    the control blocks of the poller, and who owns them
poller.py   the Poller on IOCB_CMD_POLL
"""
