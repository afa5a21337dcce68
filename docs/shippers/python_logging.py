# HTTPHandler of Python's own `logging`.
#
# Sends     a form, and a request, for each record.
# Id        of the content: a record has its time (`created`), thread and line.
# No reply  it is stored, and the handler says that it was lost: it never sends again, so
#           what meets an outage is lost.
# Fine time `created`, in parts of a microsecond.

import logging
import logging.handlers

handler = logging.handlers.HTTPHandler("127.0.0.1:3000", "/publish/python-logging", method="POST")
logging.basicConfig(level=logging.INFO, handlers=[handler])

for number in range(200):
    logging.info(f"record {number}")
