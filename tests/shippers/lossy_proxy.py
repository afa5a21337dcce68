"""A proxy that loses replies: what a client sends arrives, and is stored, and the
client is not told. It hands each request on whole. Of every path the reply to the
first write that succeeds is thrown away, and its connection closed; all others pass.

Or, to see what a client makes of a status, the first write of every path is answered
with that one and goes no further; or its reply is made longer than some clients read.
"""

import collections
import hashlib
import http.client
import http.server
import threading

# How long the service may take for a reply, in seconds.
REPLY_SECONDS_MAX = 30
# How many bytes are added to make a reply a long one.
LONG_BYTES = 5000
# The methods of requests that carry records.
WRITES = {"POST", "PUT"}
# Which statuses say when to come again.
RETRY_AFTER = {429, 503}
LOST, LONG = "no reply", "long reply"
# What concerns one connection, or is made anew for the other.
HOP_BY_HOP = {"connection", "content-length", "expect", "host", "keep-alive", "transfer-encoding"}


class Server(http.server.ThreadingHTTPServer):
    # How many connections may wait to be taken: some clients open one for each record.
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, *_):
        """A connection that a client breaks off is no news."""


class LossyProxy:
    """Listens on a free port of 127.0.0.1 while the `with` lasts."""

    def __init__(self, upstream, first=LOST):
        self.upstream = upstream  # "127.0.0.1:3000"
        self.first = first  # LOST, LONG or a status
        self.lock = threading.Lock()
        self.requests = collections.Counter()  # by path
        self.statuses = collections.Counter()
        self.lost = {}  # by path: the digest of the body that was the first
        self.repeated = set()  # paths for which the same bytes came again
        self.bodies = []  # of all writes

    def __enter__(self):
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self):
                proxy.answer(self)

            do_GET = do_HEAD = do_POST = do_PUT = do_OPTIONS = answer

            def log_message(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.socket.close()

    def answer(self, handler):
        try:
            body = read_body(handler)
            if isinstance(self.first, int) and self.is_first(handler, body):
                self.count(handler, body, self.first)
                later = [("Retry-After", "1")] if self.first in RETRY_AFTER else []
                send(handler, self.first, [("Content-Type", "application/json"), *later],
                     b'{"title":"as the test wants it","status":%d}' % self.first)
                return
            reply, content = self.pass_on(handler, body)
            self.count(handler, body, reply.status)
            headers = reply.getheaders()
            if not isinstance(self.first, int) and 200 <= reply.status < 300 and self.is_first(handler, body):
                if self.first == LOST:
                    handler.close_connection = True
                    return
                headers.append(("X-Padding", "." * LONG_BYTES))
                if "json" in reply.headers.get("Content-Type", ""):
                    content += b" " * LONG_BYTES
            send(handler, reply.status, headers, content)
        except OSError:
            # Either side has gone; the client finds out by itself.
            handler.close_connection = True

    def pass_on(self, handler, body):
        upstream = http.client.HTTPConnection(self.upstream, timeout=REPLY_SECONDS_MAX)
        try:
            headers = {n: v for n, v in handler.headers.items() if n.lower() not in HOP_BY_HOP}
            # The client asked this, and its reply comes as it is.
            upstream.request(handler.command, handler.path, body=body, headers=headers)
            reply = upstream.getresponse()
            return reply, reply.read()
        finally:
            upstream.close()

    def count(self, handler, body, status):
        with self.lock:
            self.statuses[status] += 1
            if handler.command in WRITES:
                self.requests[path_of(handler)] += 1
                self.bodies.append(body)

    def is_first(self, handler, body):
        """Whether this is the write of its path that gets another reply."""
        if handler.command not in WRITES:
            return False
        path, digest = path_of(handler), hashlib.sha256(body).digest()
        with self.lock:
            if path in self.lost:
                if self.lost[path] == digest:
                    self.repeated.add(path)
                return False
            self.lost[path] = digest
            return True


def path_of(handler):
    return handler.path.partition("?")[0]


def send(handler, status, headers, content):
    handler.send_response_only(status)
    for name, value in headers:
        if name.lower() not in HOP_BY_HOP:
            handler.send_header(name, value)
    if status != 204:
        handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(content)


def read_body(handler):
    if handler.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
    body = b""
    while size := int(handler.rfile.readline().partition(b";")[0], 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    while handler.rfile.readline().strip():
        pass
    return body
