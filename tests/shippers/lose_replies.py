"""Has stock clients send to a service by way of a proxy that loses replies, and counts
what was stored: lose_replies.py 127.0.0.1:3000 DOCS VENV NODE

Prints a row for each client. It fails when one that sends again has lost or doubled a
record, and when one that does not has lost or doubled what it had sent.
"""

import collections
import concurrent.futures
import contextlib
import json
import os
import re
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request

from clients import CLIENTS, RECORDS, Place, lacking
from lossy_proxy import LOST, LossyProxy

# How long to wait for records, and for what is sent again, in seconds.
STORED_SECONDS_MAX = 30
# How many clients run at a time.
CLIENTS_MAX = 4
# How many events the service is asked for at a time.
PAGE_EVENTS = 1000
# How often it is asked, in seconds.
POLL_SECONDS = 0.2


def stored(service, topic):
    """The payloads of a topic."""
    payloads, after = [], ""
    while True:
        query = urllib.parse.urlencode({"topic": topic, "limit": PAGE_EVENTS, **({"after": after} if after else {})})
        with urllib.request.urlopen(f"http://{service}/events?{query}", timeout=STORED_SECONDS_MAX) as reply:
            page = json.load(reply)
        if not page["events"]:
            return payloads
        payloads += [event["payload"] for event in page["events"]]
        after = page["next"]


def has_route(service, route):
    try:
        urllib.request.urlopen(urllib.request.Request(f"http://{service}{route}", b""), timeout=5).close()
    except urllib.error.HTTPError as error:
        return error.code != 404
    return True


def is_documented(docs, route):
    with open(os.path.join(docs, "..", "http.md"), encoding="utf-8") as page:
        return f"`{route}`" in page.read()


def number_in(payload):
    found = re.search(r"\brecord (\d+)", json.dumps(payload))
    return int(found[1]) if found else None


def sent(client, topic, proxy):
    """The numbers of the records that a client has sent, or is to send."""
    if client.numbers_sent:
        return {number for body in proxy.bodies for number in client.numbers_sent(body)}
    return set(range(client.sent.get(topic, RECORDS)))


class Row:
    """What became of the records of one topic."""

    def __init__(self, client, topic, proxy, payloads):
        number = client.number or number_in
        path = f"/publish/{topic}"
        several = len(client.topics) > 1
        self.name = topic if several else client.name
        self.client = client
        wanted = sent(client, topic, proxy)
        self.sent = len(wanted)
        self.stored = len(payloads)
        numbers = collections.Counter(number(payload) for payload in payloads)
        self.lost = sum(1 for one in wanted if one not in numbers)
        # What was never sent is not to be there either.
        self.doubled = self.stored - (self.sent - self.lost)
        self.requests = proxy.requests[path] if several else proxy.requests.total()
        self.is_lossy = path in proxy.lost if several else bool(proxy.lost)
        self.is_repeated = path in proxy.repeated if several else bool(proxy.repeated)
        self.statuses = dict(proxy.statuses)

    def cells(self):
        if self.client.retries:
            again = "the same bytes" if self.is_repeated else "other bytes"
        else:
            again = "does not retry"
        return [self.name, self.sent, self.stored, self.doubled, self.lost, self.requests, again]

    def is_well(self):
        return self.is_lossy and self.doubled == 0 and self.lost == 0


def run(service, client, docs, venv, node, first=LOST):
    """The rows of a client. `first` is what becomes of its first request."""
    with tempfile.TemporaryDirectory() as directory, LossyProxy(service, first) as proxy:
        place = Place(directory, proxy, docs, venv, node)
        try:
            running = client.run(place)
            serves = running is not None
            with running if serves else contextlib.nullcontext():
                deadline = time.monotonic() + STORED_SECONDS_MAX
                while time.monotonic() < deadline:
                    payloads = {topic: stored(service, topic) for topic in client.topics}
                    missing = any(len(payloads[topic]) < len(sent(client, topic, proxy)) for topic in client.topics)
                    # A program that has ended has sent what it sends. Others may not yet
                    # have sent again what was stored.
                    awaited = serves and client.retries and not proxy.repeated
                    if not missing and not awaited:
                        break
                    time.sleep(POLL_SECONDS)
            payloads = {topic: stored(service, topic) for topic in client.topics}
            rows = [Row(client, topic, proxy, payloads[topic]) for topic in client.topics]
        except Exception:
            print(f"\n!! {client.name}: {proxy.statuses}\n{place.said()}", file=sys.stderr)
            raise
        if not all(row.is_well() for row in rows):
            print(f"\n!! {client.name}: {proxy.statuses}\n{place.said()[-4000:]}", file=sys.stderr)
        return rows


def table(lines):
    widths = [max(len(str(line[column])) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print(" | ".join(str(cell).ljust(width) for cell, width in zip(line, widths)).rstrip())


def main():
    service, docs, venv, node = sys.argv[1:5]
    wanted = sys.argv[5:]
    skipped, tasks, well = [], {}, True
    with concurrent.futures.ThreadPoolExecutor(CLIENTS_MAX) as pool:
        for client in CLIENTS:
            if wanted and not any(name in client.name for name in wanted):
                continue
            if why := lacking(client, venv, node):
                skipped.append((client.name, why))
            elif not has_route(service, client.route):
                skipped.append((client.name, f"the service has no {client.route}"))
                well &= not is_documented(docs, client.route)
            else:
                tasks[client.name] = pool.submit(run, service, client, docs, venv, node)
        lines = [["client", "sent", "stored", "doubled", "lost", "requests", "sent again as"]]
        for name, task in tasks.items():
            try:
                rows = task.result()
            except Exception:
                traceback.print_exc()
                rows, well = [], False
            lines += [row.cells() for row in rows]
            well &= all(row.is_well() for row in rows)
    print()
    table(lines)
    for name, why in skipped:
        print(f"{name}: not run, {why}")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
