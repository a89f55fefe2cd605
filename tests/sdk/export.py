"""Exports log records with the OpenTelemetry SDK for Python, as any Python service would.

    export.py PROTOCOL ENDPOINT SERVICE COUNT [gzip]

PROTOCOL is grpc or http. Exits non-zero when the SDK could not deliver everything.
"""

import logging
import sys

from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource


def exporter(protocol, endpoint, gzip):
    if protocol == "grpc":
        from grpc import Compression
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

        compression = Compression.Gzip if gzip else Compression.NoCompression
        return OTLPLogExporter(endpoint=endpoint, insecure=True, compression=compression)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    compression = Compression.Gzip if gzip else Compression.NoCompression
    return OTLPLogExporter(endpoint=endpoint + "/v1/logs", compression=compression)


class Failures(logging.Handler):
    """What the SDK says when it cannot deliver."""

    seen = 0

    def emit(self, record):
        Failures.seen += 1
        print(record.getMessage(), file=sys.stderr)


def main():
    protocol, endpoint, service, count = sys.argv[1:5]
    provider = LoggerProvider(resource=Resource.create({"service.name": service, "deployment.environment": "test"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter(protocol, endpoint, "gzip" in sys.argv)))
    logging.getLogger("opentelemetry").addHandler(Failures(logging.WARNING))

    log = logging.getLogger("shop.checkout")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(LoggingHandler(logger_provider=provider))
    for n in range(int(count)):
        log.warning("payment %d was refused", n, extra={"n": n, "amount": 12.5, "currency": "EUR", "retry": True})
    try:
        raise ValueError("no such card")
    except ValueError:
        log.exception("the card service failed")
    ok = provider.force_flush(20_000)
    provider.shutdown()
    sys.exit(0 if ok and not Failures.seen else 1)


main()
