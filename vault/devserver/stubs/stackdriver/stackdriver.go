// Package stackdriver satisfies the import of a metrics sink that nobody configures here.
package stackdriver

import metrics "github.com/armon/go-metrics"

type Config struct {
	LabelExtractor, Bucketer       any
	ProjectID, Location, Namespace string
	DebugLogs                      bool
}

type Sink struct{ metrics.MetricSink }

func NewSink(any, *Config) *Sink { return nil }
