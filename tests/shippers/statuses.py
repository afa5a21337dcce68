"""What clients make of a reply that is not the usual one. The first request of each is
answered so, and then it is looked for the same bytes again. Fails when docs/shippers.md
has another table of it.

statuses.py 127.0.0.1:3000 DOCS VENV NODE [CLIENT…]

`run --statuses` starts it with a service of its own.
"""

import concurrent.futures
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import time

from clients import CLIENTS, Place, lacking
from lose_replies import CLIENTS_MAX, POLL_SECONDS, has_route, table
from lossy_proxy import LONG, LOST, LossyProxy

REPLIES = [LOST, LONG, 400, 413, 415, 422, 429, 500, 503]
# How long one that runs on may take to send again, in seconds.
AGAIN_SECONDS_MAX = 8


def again(service, client, first, docs, venv, node):
    """Whether a client sends its first request again."""
    with tempfile.TemporaryDirectory() as directory, LossyProxy(service, first) as proxy:
        # One that gives up says so by how it ends.
        with contextlib.suppress(subprocess.CalledProcessError):
            running = client.run(Place(directory, proxy, docs, venv, node))
            if running is not None:
                with running:
                    deadline = time.monotonic() + AGAIN_SECONDS_MAX
                    while time.monotonic() < deadline and not proxy.repeated:
                        time.sleep(POLL_SECONDS)
        if not proxy.lost:
            return "nothing sent"
        if proxy.repeated:
            return "again"
        return "done" if first == LONG else "drops"


def row(service, client, docs, venv, node):
    return [client.name, *(again(service, client, first, docs, venv, node) for first in REPLIES)]


def documented(docs):
    """The rows of the table in the docs, by the name that they begin with."""
    with open(os.path.join(docs, "..", "shippers.md"), encoding="utf-8") as page:
        lines = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in page]
    head = ["client", *map(str, REPLIES)]
    start = lines.index(head) + 2
    rows = itertools.takewhile(lambda cells: len(cells) == len(head), lines[start:])
    return {cells[0]: cells[1:] for cells in rows}


def main():
    service, docs, venv, node = sys.argv[1:5]
    wanted = sys.argv[5:]
    clients = [
        client for client in CLIENTS
        if not lacking(client, venv, node) and has_route(service, client.route)
        and (not wanted or any(name in client.name for name in wanted))
    ]
    with concurrent.futures.ThreadPoolExecutor(CLIENTS_MAX) as pool:
        rows = list(pool.map(lambda client: row(service, client, docs, venv, node), clients))
    table([["client", *REPLIES], *rows])
    said, differs = documented(docs), False
    for name, *outcomes in rows:
        if not any(name.startswith(known) and said[known] == outcomes for known in said):
            differs = True
            print(f"docs/shippers.md says something else of {name}, or nothing", file=sys.stderr)
    sys.exit(1 if differs else 0)


if __name__ == "__main__":
    main()
