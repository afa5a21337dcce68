# The client of Elasticsearch, 8.x or 9.x, and its `helpers.bulk` (pip install elasticsearch).
#
# Sends     `_bulk`, `chunk_size` documents a request.
# Topic     `_index`.
# Id        `_id`; of the content for a document without.
# No reply  it sends again, `max_retries` times, as it does after 429, 502, 503 and 504:
#           stored once. What was stored before is answered 200, with `noop`.
# Fine time not needed with `_id`; else a field such as `@timestamp`.

from elasticsearch import Elasticsearch, helpers

client = Elasticsearch("http://127.0.0.1:3000", max_retries=10, retry_on_timeout=True)
documents = (
    {"_index": "elasticsearch-py", "@timestamp": "2026-01-02T03:04:05.678Z", "message": f"record {number}"}
    for number in range(200)
)
helpers.bulk(client, documents, chunk_size=50)
