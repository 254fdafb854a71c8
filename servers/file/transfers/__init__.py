"""Transfer backends, one a file: how the bytes of a file range reach a socket (see base.py).

copy       pread(2) into memory, send(2) from it
sendfile   sendfile(2): from the page cache to the socket
splice     splice(2): page cache -> pipe -> socket
aio        O_DIRECT reads by io_submit(2), past the page cache, without blocking the loop
"""
