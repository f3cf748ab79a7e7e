package metrics

import (
	"strconv"
	"strings"
	"time"
)

// page is a text in Prometheus's text format, version 0.0.4. A family of
// series is begun by counter, gauge or histogram, and then has its values.
type page struct {
	text []byte
	name string // of the family
}

func (p *page) counter(name, help string) { p.family(name, "counter", help) }
func (p *page) gauge(name, help string)   { p.family(name, "gauge", help) }

func (p *page) family(name, kind, help string) {
	p.name = name
	p.text = append(p.text, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// value is one series of the family; labels are names and values in turn.
func (p *page) value(v float64, labels ...string) { p.series("", v, labels) }

// histograms is a family of one histogram for each value of a label.
func (p *page) histograms(name, help, label string, order []string, all map[string]*histogram) {
	p.family(name, "histogram", help)
	for _, value := range order {
		p.histogram(all[value], label, value)
	}
}

func (p *page) histogram(h *histogram, labels ...string) {
	var n uint64
	for i := range h.counts {
		n += h.counts[i].Load()
		le := "+Inf"
		if i < len(bounds) {
			le = number(bounds[i].Seconds())
		}
		p.series("_bucket", float64(n), append(labels[:len(labels):len(labels)], "le", le))
	}
	p.series("_sum", time.Duration(h.sum.Load()).Seconds(), labels)
	p.series("_count", float64(n), labels)
}

func (p *page) series(suffix string, v float64, labels []string) {
	p.text = append(append(p.text, p.name...), suffix...)
	for i := 0; i < len(labels); i += 2 {
		open := byte(',')
		if i == 0 {
			open = '{'
		}
		p.text = append(p.text, open)
		p.text = append(append(append(p.text, labels[i]...), `="`...), escaped.Replace(strings.ToValidUTF8(labels[i+1], "?"))...)
		p.text = append(p.text, '"')
	}
	if len(labels) > 0 {
		p.text = append(p.text, '}')
	}
	p.text = append(append(append(p.text, ' '), number(v)...), '\n')
}

var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

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
