"""HTTP/1.1 without sockets and without files: bytes and numbers in, bytes and decisions out.

request.py      the head of a request, checked: `parse(head) -> Request`, or BadRequest
target.py       what the path of a target names below a document root
framing.py      a stream of bytes cut into heads, with the bodies in between thrown away
conditional.py  preconditions (RFC 9110 13): 304, 412, If-Range
ranges.py       the Range header and multipart/byteranges (RFC 9110 14)
negotiate.py    content codings by Accept-Encoding; media types by file name
errors.py       BadRequest
dates.py        HTTP-date, and the Date header's value, made once a second

A server's loop only moves bytes; every decision that a client could notice is taken here, so that
no two loops answer differently.
"""
