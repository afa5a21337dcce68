"""What Schemathesis cannot know by itself: lines of JSON, how a webhook is signed,
what becomes of an event that is not valid, and what it had better not send."""

import hashlib
import hmac
import json

import schemathesis
from schemathesis.generation.meta import TestPhase
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

NDJSON = "application/x-ndjson"

WAIT_SECONDS_MAX = 1

# Of the service that `tests/web/run` starts. On another every webhook is 404.
WEBHOOK_TOPIC = "user.login"
WEBHOOK_SECRET = b"fuzz"


@schemathesis.serializer(NDJSON)
def write_lines(context, value):
    rows = value if isinstance(value, list) else [value]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@schemathesis.deserializer(NDJSON)
def read_lines(context, response):
    return [json.loads(line) for line in response.content.splitlines()]


@schemathesis.hook
def filter_case(context, case):
    # A header that is not UTF-8 never comes as far as the service: Spin answers
    # 500 by itself.
    if not all(str(value).isascii() for value in (case.headers or {}).values()):
        return False
    # Events as CloudEvents have a media type that is not among those of a page, which
    # has one.
    if (case.query or {}).get("format"):
        return False
    # A long poll without an event takes as long as it says. That its bounds are
    # kept is seen in the phase of coverage.
    wait = str((case.query or {}).get("wait", 0))
    waits = wait.isdecimal() and WAIT_SECONDS_MAX < int(wait) <= 20
    return not waits or case.meta is None or case.meta.phase.name == TestPhase.COVERAGE


def sign(request):
    """Signs three of four webhooks as GitHub does."""
    body = request.body or b""
    body = body.encode() if isinstance(body, str) else body
    digest = hmac.new(WEBHOOK_SECRET, body, hashlib.sha256).hexdigest()
    if int(digest[0], 16) % 4:
        request.headers["X-Hub-Signature-256"] = f"sha256={digest}"
        request.headers["X-GitHub-Delivery"] = digest
    return request


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.operation.definition.raw.get("operationId") != "receiveWebhook":
        return
    topic = (case.path_parameters or {}).get("topic")
    # Most topics that are made up have no secret.
    if isinstance(topic, str) and 0 < len(topic) <= 255 and len(topic) % 4:
        case.path_parameters["topic"] = WEBHOOK_TOPIC
    kwargs["auth"] = sign


@schemathesis.check
def refused_or_named(context, response, case):
    """A request that is not valid is refused, or the reply names an event of it as rejected.

    In place of `negative_data_rejection`, and of that for all operations: left out
    for some of them alone it is run for them now and then all the same.
    """
    operation = case.operation.definition.raw.get("operationId")
    # A probe is answered whatever the topic, and to these null is a message of nothing.
    if operation in ("headPublish", "headPublishRecords"):
        return None
    # What is signed is taken, and what is not is none of its events.
    if operation == "receiveWebhook" and response.status_code == 200:
        return None
    if operation in ("exportLogs", "pushLines") and response.status_code in (200, 204):
        return None
    if operation == "publishStream" and response.status_code == 200:
        outcomes = read_lines(context, response)
        # A body without a line, or none at all, is a stream of no events.
        if not outcomes or any(one["status"] == "rejected" for one in outcomes):
            return None
    if operation in ("publish", "publishRecords") and response.status_code in (200, 409):
        # Any object is a record.
        is_record = operation == "publishRecords" or "topic" in (case.query or {})
        if is_record or response.json()["rejected"] > 0:
            return None
    return negative_data_rejection(context, response, case)


# The protocols of others, whose bodies have rules that no schema tells.
OTHERS = ("/_bulk", "/{index}/_bulk", "/loki/", "/services/collector", "/v1/logs")


def beyond_whole(body):
    """Whether the cursor is written as a fraction and beyond what one tells exactly.

    To a schema `9007199254740992.0` is as whole as `9007199254740992`; the service does not
    guess which of its neighbours was meant.
    """
    cursor = body.get("cursor") if isinstance(body, dict) else None
    return isinstance(cursor, float) and cursor > 2**53 - 1


@schemathesis.check
def taken_or_not_of_its_form(context, response, case):
    """A request that is valid is taken, in place of `positive_data_acceptance`.

    But for parameters that lead to what most records do not have, and for what is
    refused by a protocol's own rules.
    """
    operation = case.operation.definition.raw.get("operationId")
    if operation == "receiveWebhook" and response.status_code in (401, 404):
        return None
    if operation == "acknowledge" and beyond_whole(case.body):
        return None
    query = case.query or {}
    led = [query.get(name, "content") for name in ("event_id", "timestamp", "payload")]
    if any(value != "content" for value in led):
        return None
    if case.operation.path.startswith(OTHERS) and response.status_code == 400:
        return None
    return positive_data_acceptance(context, response, case)
