"""A static HTTP/1.1 file server: one core, any loop and poller, several ways to move a body.

plan.py       an answer that is decided and not yet sent;  parts.py cuts it into what can be sent
site.py       Request -> Plan for a document root, and the memo of its answers
session.py    one connection's side of HTTP: bytes in, plans out
root.py       the document root, opened beneath itself;  listing.py a directory as HTML
cache.py      the open-file cache;  changes.py which paths changed;  sources.py who tells
service.py    what is common to every loop: deadlines, counters, site;  accesslog.py
options.py    the command line

on_reactor.py   our reactor over any poller: reactor_connection.py, outgoing.py
on_asyncio.py   asyncio and uvloop: asyncio_copy.py, asyncio_sendfile.py
on_trio.py      trio: trio_connection.py;  hosted.py what loops that are not ours have in common
transfers/      how the bytes of a file reach a socket, a backend a file

HTTP itself, without sockets and files, is servers/http/.
"""
