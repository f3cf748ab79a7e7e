package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAllAgree asks everybody everything.
func TestAllAgree(t *testing.T) {
	for _, v := range variants {
		for _, n := range []int{10, 100} {
			t.Run(fmt.Sprintf("%s/%d", v.name, n), func(t *testing.T) {
				w := newWorkload(v, n)
				for _, c := range contenders {
					answersAsExpected(t, c, w, len(w.questions))
				}
			})
		}
	}
}

// TestLargeAgree asks those that can answer many questions about many rows.
func TestLargeAgree(t *testing.T) {
	for _, v := range variants {
		w := newWorkload(v, 10_000)
		answersAsExpected(t, contenders[0], w, len(w.questions))
		answersAsExpected(t, contenders[1], w, 400)
	}
}

func answersAsExpected(t *testing.T, c contender, w workload, n int) {
	t.Helper()
	e, err := c.build(w.rows)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	ask, err := e.ask(w.questions)
	if err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	for i, q := range w.questions[:n] {
		got, err := ask(i)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got != q.allowed {
			t.Fatalf("%s answers %v to %+v", c.name, got, q)
		}
	}
}

func TestWorkload(t *testing.T) {
	for _, v := range variants {
		for _, n := range sizes {
			w := newWorkload(v, n)
			groups := map[string]int{}
			for _, r := range w.rows {
				groups[r.group]++
			}
			if len(w.rows) != n || n >= 100 && (groups["1"] != n*95/100 || groups["2"] != n*4/100 || groups["NOT"] != n/100) {
				t.Errorf("%s: %d rows, by group %v", v.name, len(w.rows), groups)
			}
			distinct := map[question]bool{}
			for i, q := range w.questions {
				asked := q
				asked.allowed = false
				distinct[asked] = true
				if q.allowed != (i%2 == 0) {
					t.Fatalf("%s, %d rows: question %d is allowed: %v", v.name, n, i, q.allowed)
				}
			}
			if len(w.questions) != requests || len(distinct) != requests {
				t.Errorf("%s, %d rows: %d questions, %d distinct", v.name, n, len(w.questions), len(distinct))
			}
		}
	}
}

func TestWorkload_is_the_same_again(t *testing.T) {
	for _, v := range variants {
		one, two := newWorkload(v, 1000), newWorkload(v, 1000)
		if !slices.Equal(one.rows, two.rows) || !slices.Equal(one.questions, two.questions) {
			t.Errorf("%s: two workloads differ", v.name)
		}
	}
}

func TestMixed_has_all_forms_of_filters(t *testing.T) {
	w := newWorkload(variants[0], 1000)
	seen := map[string]int{}
	for _, r := range w.rows {
		for column, text := range map[string]string{"name": r.name, "host": r.host, "login": r.login} {
			form := "exact"
			switch {
			case text == "*":
				form = "*"
			case strings.HasSuffix(text, "*"):
				form = "prefix"
			case strings.HasPrefix(text, "*"):
				form = "suffix"
			}
			seen[column+" "+form]++
		}
	}
	for _, form := range []string{"name exact", "name prefix", "name suffix", "host exact", "host *", "host prefix", "login exact", "login *", "login prefix"} {
		if seen[form] < 100 {
			t.Errorf("%d of 1000 rows have the form %q", seen[form], form)
		}
	}
	if seen["name *"] > 0 {
		t.Errorf("%d rows have the name *", seen["name *"])
	}
}

// TestDenials_have_every_reason removes what denies and finds the question allowed.
func TestDenials_have_every_reason(t *testing.T) {
	w := newWorkload(variants[0], 1000)
	one, two, nots := byGroup(w.rows)
	byNot, byOne, byTwo := 0, 0, 0
	for _, q := range w.questions {
		if q.allowed {
			continue
		}
		first, second := linear{one}.allows(q), linear{two}.allows(q)
		switch {
		case first && second && !linear{append(nots, one...)}.allows(q):
			byNot++
		case first && !second:
			byTwo++
		case !first && second:
			byOne++
		}
	}
	if least := requests / 2 / 10; byNot < least || byTwo < least || byOne == 0 {
		t.Errorf("denied by NOT alone %d, by group 2 alone %d, by group 1 alone %d", byNot, byTwo, byOne)
	}
}

func TestLinear(t *testing.T) {
	rows := []row{
		{"1", "JOBS", "pay.*", "*", "A,b?", "RX"},
		{"1", "*", "*", "H1", "", "X"},
		{"2", "*", "P*", "", "", "RX"},
		{"NOT", "*", "*.ROOT", "*", "*", "X"},
	}
	tests := []struct {
		rule string
		q    question
		want bool
	}{
		{"AU8: a row of each group", question{kind: "JOBS", name: "PAY.A", host: "H", login: "A", right: "X"}, true},
		{"AU8: none of group 2", question{kind: "JOBS", name: "X", host: "H1", login: "A", right: "X"}, false},
		{"AU8: no right implies another", question{kind: "JOBS", name: "PAY.A", host: "H", login: "A", right: "W"}, false},
		{"AU7: NOT", question{kind: "JOBS", name: "PAY.ROOT", host: "H", login: "A", right: "X"}, false},
		{"AU7: only the rights of the row", question{kind: "JOBS", name: "PAY.ROOT", host: "H", login: "A", right: "R"}, true},
		{"AU9: columns of two rows", question{kind: "JOBP", name: "PAY.A", host: "H", login: "A", right: "X"}, false},
		{"AU11: ? is one character", question{kind: "JOBS", name: "PAY.A", host: "H", login: "B", right: "X"}, false},
		{"AU12: a list", question{kind: "JOBS", name: "PAY.A", host: "H", login: "BÜ", right: "X"}, true},
		{"AU14: case", question{kind: "jobs", name: "Pay.a", host: "h", login: "a", right: "X"}, true},
		{"AU16: no login", question{kind: "JOBS", name: "PAY.A", host: "H", right: "X"}, true},
	}
	l, err := newLinear(rows)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if got := l.(linear).allows(tt.q); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if (linear{}).allows(question{kind: "JOBS", name: "A", right: "X"}) {
		t.Error("AU3: allowed by no rows")
	}
}

// TestCheck makes each bound fail in turn.
func TestCheck(t *testing.T) {
	good := func() (lines []line) {
		for _, v := range variants {
			for _, n := range sizes {
				l := line{variant: v, rows: n, costs: make([]cost, len(contenders))}
				for i := range l.costs {
					l.costs[i] = cost{ns: 1e9, asked: 10}
				}
				l.costs[0].ns = 500
				l.index = indexCost{parse: time.Second, index: time.Second / 2, memory: 1, rows: 1}
				lines = append(lines, l)
			}
		}
		return lines
	}
	if missed := check(good()); missed != nil {
		t.Fatalf("misses %q", missed)
	}
	last := len(sizes) - 1
	tests := map[string]func(lines []line) []line{
		"allocations":   func(l []line) []line { l[0].costs[0].allocs = 0.5; return l },
		"at most 1000":  func(l []line) []line { l[len(sizes)].costs[0].ns = 1001; return l },
		"at most 2000":  func(l []line) []line { l[last].costs[0].ns = 2001; return l },
		"at most 8":     func(l []line) []line { l[0].costs[0].ns = 50; return l },
		"at most 1s":    func(l []line) []line { l[last].index.index = 2 * time.Second; return l },
		"at most 3":     func(l []line) []line { l[last].index.memory = 3.1; return l },
		"at least 100":  func(l []line) []line { l[1].costs[2].ns = 99 * 500; return l },
		"at least 5000": func(l []line) []line { l[3].costs[3].ns = 4999 * 500; return l },
		"not all":       func(l []line) []line { return l[1:] },
		"takes 0 times": func(l []line) []line { l[1].costs[3] = cost{}; return l },
		"has a bound was m": func(l []line) []line {
			l[last].index, l[2*len(sizes)-1].index = indexCost{}, indexCost{}
			return l[:2*len(sizes)]
		},
	}
	for want, spoil := range tests {
		t.Run(want, func(t *testing.T) {
			missed := strings.Join(check(spoil(good())), "\n")
			if !strings.Contains(missed, want) {
				t.Errorf("got %q", missed)
			}
		})
	}
}

func TestMeasureIndex(t *testing.T) {
	w := newWorkload(variants[0], 10_000)
	c, err := measureIndex(w.rows, 1)
	if err != nil {
		t.Fatal(err)
	}
	if least := uint64(10_000 * 60); c.rows < least || c.rows > 5*least {
		t.Errorf("the rows have %d bytes", c.rows)
	}
	if c.memory <= 0 || c.parse <= c.index {
		t.Errorf("%+v", c)
	}
}
