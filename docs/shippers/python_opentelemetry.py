# The SDK of OpenTelemetry (pip install opentelemetry-sdk opentelemetry-exporter-otlp-proto-http).
#
# Sends     OTLP in protocol buffers; in gzip with OTEL_EXPORTER_OTLP_COMPRESSION=gzip.
# Topic     `service.name`.
# Id        of the content: the record with its times, resource and scope.
# No reply  it sends again, as it does after 429, 502, 503 and 504: stored once.
# Fine time of the record, in nanoseconds.

import logging
import os

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

service = os.environ.get("OTEL_SERVICE_NAME", "checkout")
provider = LoggerProvider(resource=Resource.create({"service.name": service}))
provider.add_log_record_processor(BatchLogRecordProcessor(
    OTLPLogExporter(endpoint="http://127.0.0.1:3000/v1/logs"), max_export_batch_size=50))
logging.basicConfig(level=logging.INFO, handlers=[LoggingHandler(logger_provider=provider)])

for number in range(200):
    logging.info("record %d", number)
provider.shutdown()
