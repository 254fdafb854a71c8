"""An echo server: what it reads it writes back, on any loop, poller and backend.

The client cannot tell the loops apart: same socket options, backlog, half-close (what is left is
sent before the close) and the same bound, one CHUNK a connection that does not read.  Only a
server that is out of fds shows its loop: libuv then accepts and closes what it cannot serve, the
others leave it in the backlog.
"""
