#!/bin/sh
# curl 7.71 and later, in the five ways in which records come.
#
# Sends     what it is given, and the same body with each attempt.
# Id        of the content: the line, and which equal line of its body it is.
# No reply  it sends again, as it does after 408, 429 and 5xx: stored once.
# Fine time in the line, as a log has it; the same file sent a second time adds nothing.

post() {
  curl --silent --show-error --retry 8 --retry-all-errors --max-time 30 "$@"
}

# Lines of text.
seq --format 'record %g' 0 199 | post --data-binary @- -H 'Content-Type: text/plain' \
  http://127.0.0.1:3000/publish/curl-lines

# A JSON array.
seq --format '{"message": "record %g"}' 0 199 | paste -sd , | sed 's/.*/[&]/' | post --data-binary @- \
  http://127.0.0.1:3000/publish/curl-array

# NDJSON.
seq --format '{"message": "record %g"}' 0 199 | post --data-binary @- \
  http://127.0.0.1:3000/publish/curl-ndjson

# The same in gzip.
seq --format '{"message": "record %g"}' 0 199 | gzip | post --data-binary @- -H 'Content-Encoding: gzip' \
  http://127.0.0.1:3000/publish/curl-gzip

# A form: one record.
post --data-urlencode 'message=record 0' --data-urlencode 'level=info' \
  http://127.0.0.1:3000/publish/curl-form
