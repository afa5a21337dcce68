# requests with urllib3's Retry (pip install requests).
#
# Sends     a JSON array for each batch; the same body with each attempt.
# Id        of the content: the record, and which equal record of its batch it is.
# No reply  it sends again (POST as well, as `allowed_methods` says), as it does after the
#           statuses in the list: stored once.
# Fine time `time`, in nanoseconds.

import time

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

URL = "http://127.0.0.1:3000/publish/requests"

session = requests.Session()
session.mount("http://", HTTPAdapter(max_retries=Retry(
    total=10,
    backoff_factor=0.2,
    status_forcelist=[429, 500, 502, 503, 504],
    allowed_methods=None,  # a retry of a POST is safe here
)))

records = [{"time": time.time_ns(), "message": f"record {number}"} for number in range(200)]
for start in range(0, len(records), 50):
    session.post(URL, json=records[start:start + 50], timeout=30).raise_for_status()
