// The SDK of OpenTelemetry (npm install @opentelemetry/sdk-logs @opentelemetry/resources
// @opentelemetry/exporter-logs-otlp-proto; @opentelemetry/exporter-logs-otlp-http for JSON).
//
// Sends     OTLP in protocol buffers, or in JSON; in gzip with OTEL_EXPORTER_OTLP_COMPRESSION=gzip.
// Topic     `service.name`.
// Id        of the content: the record with its times, resource and scope.
// No reply  it sends again, as it does after 429, 502, 503 and 504: stored once.
// Fine time of the record; milliseconds from `new Date()`, nanoseconds as [seconds, nanoseconds].

import { OTLPLogExporter } from '@opentelemetry/exporter-logs-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BatchLogRecordProcessor, LoggerProvider } from '@opentelemetry/sdk-logs';

const provider = new LoggerProvider({
  resource: resourceFromAttributes({ 'service.name': process.env.OTEL_SERVICE_NAME ?? 'checkout' }),
  processors: [new BatchLogRecordProcessor({
    exporter: new OTLPLogExporter({ url: 'http://127.0.0.1:3000/v1/logs' }),
    maxExportBatchSize: 50,
  })],
});
const log = provider.getLogger('checkout');

for (let number = 0; number < 200; number += 1) {
  log.emit({ severityNumber: 9, severityText: 'INFO', body: `record ${number}` });
}
await provider.shutdown();
