package limits

import (
	"testing"

	"batchwarden/daemon/config"
)

func TestMax(t *testing.T) {
	type asked map[string]uint64
	for _, c := range []struct {
		sentence string
		max      string
		asks     asked
		nice     int
		want     string
	}{
		{sentence: "who asks for nothing", max: "{nofile: 1}"},
		{sentence: "up to max", max: "{nofile: 100}", asks: asked{"nofile": 100}},
		{sentence: "not above", max: "{nofile: 100}", asks: asked{"nofile": 101}, want: "max.nofile: 101 is above 100"},
		{sentence: "max may be above what the launcher has", max: "{nofile: 9000}", asks: asked{"nofile": 9000}},
		{sentence: "without a ceiling, up to what the launcher has", asks: asked{"nofile": 512}},
		{sentence: "and not above", asks: asked{"nofile": 513}, want: "max.nofile is not set, and the launcher's own limit: 513 is above 512"},
		{sentence: "a ceiling of nothing is one", max: "{core: 0}", asks: asked{"core": 1}, want: "max.core"},
		{sentence: "each is looked at", max: "{nofile: 100}", asks: asked{"nofile": 1, "stack": 9}, want: "max.stack"},
		{sentence: "a lower priority is everybody's", nice: 19},
		{sentence: "a higher one needs max.nice", nice: -1, want: "max.nice"},
		{sentence: "and has it down to what that stands for", max: "{nice: 25}", nice: -5},
		{sentence: "not further", max: "{nice: 25}", nice: -6, want: "below -5"},
		{sentence: "nor without any", max: "{nice: 0}", nice: -1, want: "below 20"},
		{sentence: "a number beyond the kernel's is its highest", max: "{nice: 18446744073709551615}", nice: -20},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			limits, err := config.ParseLimits("limits.yaml", []byte("version: 1\nmax: "+c.max+"\n"))
			if c.max == "" {
				limits, err = config.ParseLimits("limits.yaml", []byte("version: 1\n"))
			}
			if err != nil {
				t.Fatal(err)
			}
			q := question{Limits: limits, Launch: Launch{Resources: c.asks, Nice: c.nice, Own: asked{"nofile": 512, "stack": 8, "core": 5}}}
			expect(t, q.resources(), c.want)
		})
	}
}
