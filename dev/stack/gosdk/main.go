// Program export sends log records with the OpenTelemetry SDK for Go, as any Go service would.
//
//	export PROTOCOL ENDPOINT SERVICE COUNT [gzip]
//
// PROTOCOL is grpc or http. Exits non-zero when the SDK could not deliver everything.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/trace"
)

func exporter(ctx context.Context, protocol, endpoint string, gzip bool) (sdklog.Exporter, error) {
	if protocol == "grpc" {
		options := []otlploggrpc.Option{otlploggrpc.WithEndpointURL(endpoint)}
		if gzip {
			options = append(options, otlploggrpc.WithCompressor("gzip"))
		}
		return otlploggrpc.New(ctx, options...)
	}
	options := []otlploghttp.Option{otlploghttp.WithEndpointURL(endpoint + "/v1/logs")}
	if gzip {
		options = append(options, otlploghttp.WithCompression(otlploghttp.GzipCompression))
	}
	return otlploghttp.New(ctx, options...)
}

func run() error {
	if len(os.Args) < 5 {
		return fmt.Errorf("usage: export PROTOCOL ENDPOINT SERVICE COUNT [gzip]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	count, err := strconv.Atoi(os.Args[4])
	if err != nil {
		return err
	}
	exporter, err := exporter(ctx, os.Args[1], os.Args[2], len(os.Args) > 5 && os.Args[5] == "gzip")
	if err != nil {
		return err
	}
	var failures atomic.Int32
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		failures.Add(1)
		fmt.Fprintln(os.Stderr, err)
	}))
	provider := sdklog.NewLoggerProvider(
		sdklog.WithResource(resource.NewSchemaless(
			attribute.String("service.name", os.Args[3]),
			attribute.String("deployment.environment.name", "test"),
			attribute.Int("shard", 7),
		)),
		sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter)),
	)
	logger := provider.Logger("shop.checkout", log.WithInstrumentationVersion("1.2.3"))
	spanned := trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    trace.TraceID{0x5b, 0x8e, 0xff, 0xf7, 0x98, 0x03, 0x81, 0x03, 0xd2, 0x69, 0xb6, 0x33, 0x81, 0x3f, 0xc6, 0x0c},
		SpanID:     trace.SpanID{0xee, 0xe1, 0x9b, 0x7e, 0xc3, 0xc1, 0xb1, 0x74},
		TraceFlags: trace.FlagsSampled,
	}))
	for n := range count {
		var record log.Record
		record.SetTimestamp(time.Now())
		record.SetSeverity(log.SeverityWarn)
		record.SetSeverityText("WARN")
		record.SetBody(attribute.StringValue(fmt.Sprintf("payment %d was refused", n)))
		record.AddAttributes(
			attribute.Int("n", n),
			attribute.Int64("big", 9007199254740993),
			attribute.Float64("amount", 12.5),
			attribute.String("currency", "EUR"),
			attribute.Bool("retry", true),
			attribute.Slice("tags", attribute.StringValue("a"), attribute.IntValue(2)),
			attribute.Map("card", attribute.String("brand", "visa"), attribute.Int("tries", 3)),
		)
		logger.Emit(spanned, record)
	}
	if err := provider.ForceFlush(ctx); err != nil {
		return err
	}
	if err := provider.Shutdown(ctx); err != nil {
		return err
	}
	if failures.Load() > 0 {
		return fmt.Errorf("the SDK reported %d failures", failures.Load())
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
