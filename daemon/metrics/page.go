package metrics

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// Page is everything, in Prometheus's text format; empty before Watch.
func (m *Metrics) Page() ([]byte, error) {
	if m.source.Load() == nil {
		return nil, nil
	}
	families, err := m.registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	var text bytes.Buffer
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&text, family); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return text.Bytes(), nil
}

// stand are the metrics of how things stand. A family of series is begun by
// counter or gauge, and then has its values.
type stand struct {
	to       chan<- prometheus.Metric
	families []string
	help     string
	kind     prometheus.ValueType
}

func (s *stand) counter(name, help string) { s.family(name, help, prometheus.CounterValue) }
func (s *stand) gauge(name, help string)   { s.family(name, help, prometheus.GaugeValue) }

func (s *stand) family(name, help string, kind prometheus.ValueType) {
	s.families, s.help, s.kind = append(s.families, name), help, kind
}

// value is one series of the family; labels are names and values in turn.
func (s *stand) value(v float64, labels ...string) {
	var names, values []string
	for pair := range slices.Chunk(labels, 2) {
		names, values = append(names, pair[0]), append(values, text(pair[1]))
	}
	name := s.families[len(s.families)-1]
	s.to <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, s.help, names, nil), s.kind, v, values...)
}

// text is a label's value, whatever was in it.
func text(value string) string { return strings.ToValidUTF8(value, "?") }

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// stamp is a time as Prometheus has it; 0 when there is none.
func stamp(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
