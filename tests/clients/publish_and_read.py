"""Publishes, and reads what it has published, with a client that
`openapi-python-client` made: publish_and_read.py http://127.0.0.1:3000
"""

import os
import sys
import time

from sekali_client import Client
from sekali_client.api.observe import get_health, get_healthz, get_stats
from sekali_client.api.publish import publish
from sekali_client.api.read import list_events
from sekali_client.api.subscribe import (
    acknowledge,
    delete_subscription,
    put_subscription,
    read_subscription,
)
from sekali_client.models import (
    Acknowledgement,
    EventToPublish,
    ListEventsResponse409,
    Page,
    Published,
    PublishResponse422,
    PublishResults,
    SubscriptionToPut,
    WrappedBatch,
)

client = Client(base_url=sys.argv[1])
topic = f"python-{os.getpid()}-{time.time_ns()}"


def payload(number):
    return {"id": number, "nested": [None, 1.5]}


def event(number):
    return EventToPublish(
        topic=topic, event_id=str(number), source="openapi-python-client", payload=payload(number)
    )


# Each of the shapes that a body can have.
for body in [event(1), [event(1), event(2)], WrappedBatch(events=[event(3), event(4)])]:
    published = publish.sync(client=client, body=body)
    assert isinstance(published, Published), published
    assert published.accepted + published.duplicates == published.received, published

named = publish.sync(client=client, body=[event(4), event(5)], results=PublishResults.ALL)
assert isinstance(named, Published), named
assert [result.status for result in named.results] == ["duplicate", "accepted"], named

refused = publish.sync_detailed(client=client, body=EventToPublish("", "1", "s"))
assert refused.status_code == 422, refused
assert isinstance(refused.parsed, PublishResponse422), refused
assert refused.parsed.code == "invalid_events", refused
assert refused.parsed.errors[0].field == "topic", refused

# Page by page, as a reader does it.
read, after = [], "0"
while True:
    page = list_events.sync(client=client, topic=topic, after=after, limit=2)
    assert isinstance(page, Page), page
    if page.count == 0:
        break
    read += page.events
    after = page.next_
assert [one.event_id for one in read] == ["1", "2", "3", "4", "5"], read
assert [one.payload for one in read] == [payload(number) for number in range(1, 6)], read

ahead = list_events.sync(client=client, after="900000000000000000")
assert isinstance(ahead, ListEventsResponse409), ahead
assert ahead.code == "cursor_ahead", ahead

# By a position that the service keeps.
defined = put_subscription.sync(topic, client=client, body=SubscriptionToPut(topics=[topic]))
assert defined.lag == 5, defined
page = read_subscription.sync(topic, client=client, limit=3)
moved = acknowledge.sync(topic, client=client, body=Acknowledgement(cursor=page.next_))
assert moved.lag == 2, moved
assert delete_subscription.sync(topic, client=client).name == topic

stats = get_stats.sync(client=client)
assert stats.by_topic[topic].unique_processed == 5, stats
assert get_health.sync(client=client).status == "healthy"
assert get_healthz.sync(client=client).ok is True
print(f"published and read {len(read)} events")
