# The SDK of CloudEvents, 2.x, and requests (pip install cloudevents requests).
#
# Sends     one CloudEvent a request, in binary mode, or structured (`to_structured_event`).
# Topic     `type`, unless the path has one.
# Id        `source` and `id`, which the SDK makes (a UUID) where the program gives none.
# No reply  the session sends again: stored once.
# Fine time not needed.

import sys

import requests
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

URL = "http://127.0.0.1:3000/publish"
encode = to_structured_event if "structured" in sys.argv else to_binary_event

session = requests.Session()
session.mount("http://", HTTPAdapter(max_retries=Retry(
    total=10, backoff_factor=0.2, status_forcelist=[429, 500, 502, 503, 504], allowed_methods=None)))

for number in range(200):
    attributes = {"type": f"python.{encode.__name__}", "source": "/shop", "id": f"order-{number}"}
    message = encode(CloudEvent(attributes, {"message": f"record {number}"}))
    session.post(URL, headers=message.headers, data=message.body, timeout=30).raise_for_status()
