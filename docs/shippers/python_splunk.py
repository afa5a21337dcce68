# splunk-handler, for Python's `logging` (pip install splunk-handler).
#
# Sends     events to Splunk's HTTP event collector, one after another, every `flush_interval`.
# Topic     `index`.
# Id        of the content: the line, its time, host, source and index.
# No reply  it sends again, `retry_count` times, as it does after 5xx, and then drops the
#           batch: stored once.
# Fine time `time`, in parts of a microsecond.

import logging

from splunk_handler import SplunkHandler

handler = SplunkHandler(
    host="127.0.0.1", port=3000, protocol="http", verify=False, token="any",
    index="splunk-handler", flush_interval=1, retry_backoff=0.2)
logging.basicConfig(level=logging.INFO, handlers=[handler])

for number in range(200):
    logging.info("record %d", number)
handler.force_flush()
