package strict

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

type match struct {
	User string `json:"user"`
}

type client struct {
	Name  string            `json:"name"`
	Match *match            `json:"match"`
	May   []string          `json:"may"`
	Env   map[string]string `json:"env"`
	Wait  Duration          `json:"wait"`
	Max   Size              `json:"max"`
}

type common struct {
	Version int `json:"version"`
}

type config struct {
	common2
	Common  common             `json:"common"`
	On      bool               `json:"on"`
	Small   uint8              `json:"small"`
	Ratio   float64            `json:"ratio"`
	Note    json.RawMessage    `json:"note"`
	Clients []client           `json:"clients"`
	ByName  map[string]*client `json:"by_name"`
	Hidden  string
}

type common2 struct {
	Machine string `json:"machine"`
}

func decode(t *testing.T, file, text string, ignoreX bool) (config, error) {
	t.Helper()
	var c config
	d, err := Parse(file, []byte(text))
	if err != nil {
		return c, err
	}
	d.IgnoreX = ignoreX
	d.Decode(&c)
	return c, d.Err()
}

func TestSameValueFromJSONAndYAML(t *testing.T) {
	jsonText := `{"machine":"db01","common":{"version":1},"on":true,"small":7,"ratio":0.5,
 "note":{"a":[1,null,"x\"é",true]},
 "clients":[{"name":"yes","match":{"user":"off"},"may":["authorize","12:30","1.2.3","2026-01-01"],"env":{"A":"","on":"no"},"wait":"1h30m","max":"64MiB"},{"name":"C:\\TEMP\\*"}],
 "by_name":{"JDOE/DEPT":{"name":"two\nlines\n"},"empty":{}}}`
	yamlText := `# a comment
machine: db01
common: {version: 1}
on: true
small: 7      # and another
ratio: 0.5
note:
  a: [1, null, "x\"é", true]
clients:
- name: yes
  match:
    user: off
  may: [authorize, 12:30, 1.2.3, 2026-01-01]
  env: {A: "", on: no}
  wait: 1h30m
  max: 64MiB
- name: C:\TEMP\*
by_name:
  JDOE/DEPT:
    name: |
      two
      lines
  empty: {}
`
	fromJSON, err := decode(t, "a.json", jsonText, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"LF": yamlText, "CRLF": strings.ReplaceAll(yamlText, "\n", "\r\n")} {
		fromYAML, err := decode(t, "a.yaml", text, false)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(fromYAML, fromJSON) {
			t.Errorf("%s: YAML gives %+v, JSON %+v", name, fromYAML, fromJSON)
		}
	}
	want := client{Name: "yes", Match: &match{User: "off"}, May: []string{"authorize", "12:30", "1.2.3", "2026-01-01"},
		Env: map[string]string{"A": "", "on": "no"}, Wait: Duration(90 * time.Minute), Max: 64 << 20}
	if !reflect.DeepEqual(fromJSON.Clients[0], want) {
		t.Errorf("got %+v, want %+v", fromJSON.Clients[0], want)
	}
	if got := string(fromJSON.Note); got != `{"a":[1,null,"x\"é",true]}` {
		t.Errorf("note: %s", got)
	}
}

func TestFaultsAreNamedTogether(t *testing.T) {
	const yamlText = `machine: 7
common:
  version: "1"
  extra: 1
small: 300
on: yes
clients:
  - name: true
    may: authorize
    match: {user: ~}
    wait: soon
    max: -1
  - nam: x
    max: 99999999999TiB
    wait: -1s
by_name:
ratio: 1_000
`
	_, err := decode(t, "clients.d/x.yaml", yamlText, false)
	want := []string{
		`clients.d/x.yaml:1:10: machine: must be a text; quote it: "7"`,
		`clients.d/x.yaml:3:12: common.version: must be a whole number, not the text "1"`,
		`clients.d/x.yaml:4:3: common.extra: is not known; known here: version`,
		`clients.d/x.yaml:5:8: small: must be a whole number, not negative of 8 bits, not 300`,
		`clients.d/x.yaml:6:5: on: must be true or false, not the text "yes"`,
		`clients.d/x.yaml:8:11: clients[0].name: must be a text; quote it: "true"`,
		`clients.d/x.yaml:9:10: clients[0].may: must be a list, not the text "authorize"`,
		`clients.d/x.yaml:10:19: clients[0].match.user: has no value; leave it out or give it a text`,
		`clients.d/x.yaml:11:11: clients[0].wait: "soon" is not a time such as 30s, 15m or 72h`,
		`clients.d/x.yaml:12:10: clients[0].max: must be a text; quote it: "-1"`,
		`clients.d/x.yaml:13:5: clients[1].nam: is not known; known here: name, match, may, env, wait, max`,
		`clients.d/x.yaml:14:10: clients[1].max: "99999999999TiB" is not a size such as 512KiB, 64MiB or 1GiB`,
		`clients.d/x.yaml:15:11: clients[1].wait: "-1s" is negative`,
		`clients.d/x.yaml:16:9: by_name: has no value; leave it out or give it an object`,
		`clients.d/x.yaml:17:8: ratio: must be a number, not 1_000`,
	}
	if err == nil {
		t.Fatal("no fault")
	}
	got := strings.Split(err.Error(), "\n")
	for i := range max(len(got), len(want)) {
		g, w := "", ""
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("fault %d:\n got %s\nwant %s", i, g, w)
		}
	}
}

func TestCallersFault(t *testing.T) {
	const text = `{"clients": [
 {"may": ["authorize",
  "lanch"]}], "by.name": {"a[0].b": {"c": 1}, "a": [{"b": {"d": 2}}]}}`
	d, err := Parse("c.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	d.Fault("clients[0].may[1]", "%q is not one of %s", "lanch", "authorize, launch")
	d.Fault("by.name.a[0].b.c", "the name with dots and brackets")
	d.Fault("by.name.a[0].b.d", "the list")
	d.Fault("clients[0].name", "is required")
	d.Fault("", "whole")
	want := `c.json:1:1: whole
c.json:2:2: clients[0].name: is required
c.json:3:3: clients[0].may[1]: "lanch" is not one of authorize, launch
c.json:3:43: by.name.a[0].b.c: the name with dots and brackets
c.json:3:65: by.name.a[0].b.d: the list`
	if got := d.Err().Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for place, want := range map[string]bool{"clients": true, "clients[0].may[1]": true, "clients[0].may[2]": false,
		"clients[1]": false, "by.name": true, "by": false, "by.name.a[0].b.c": true, "by.name.a[0].b.e": false, "clients[x]": false} {
		if got := d.Has(place); got != want {
			t.Errorf("Has(%q) = %v", place, got)
		}
	}
}

func TestIgnoreX(t *testing.T) {
	const text = `{"x_note": 1, "clients": [{"x_a": {"y": null}}], "by_name": {"x_bob": {"name": "b"}}}`
	c, err := decode(t, "x.json", text, true)
	if err != nil {
		t.Fatal(err)
	}
	if c.ByName["x_bob"] == nil || c.ByName["x_bob"].Name != "b" {
		t.Error("an entry of a map is data, whatever its name")
	}
	if _, err := decode(t, "x.json", text, false); err == nil || len(err.(Faults)) != 2 {
		t.Errorf("want two faults, got %v", err)
	}
}

func TestRefused(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	deepYAML := func(n int) (s string) {
		for i := range n {
			s += strings.Repeat(" ", i) + "a:\n"
		}
		return s + strings.Repeat(" ", n) + "b\n"
	}
	for name, tc := range map[string]struct{ text, want string }{
		"JSON duplicate":         {`{"a":{},"b":{"c":1, "c":2}}`, `f:1:21: b.c: is there twice`},
		"JSON duplicate list":    {`[[],{"c":1, "c":2}]`, `f:1:13: [1].c: is there twice`},
		"JSON escaped name":      {`{"ab":1,"\u0061b":2}`, `f:1:9: ab: is there twice`},
		"JSON trailing":          {"{}\n x", `f:2:2: has more text after its end`},
		"JSON trailing JSON":     {"{} {}", `f:1:4: has more text after its end`},
		"JSON cut":               {`{"a":`, `f:1:6: ends in the middle of the JSON text`},
		"JSON comma":             {`[1,]`, `f:1:4: is not JSON: invalid character ']'`},
		"JSON no comma":          {`[1 2]`, `f:1:4: is not JSON: invalid character '2'`},
		"JSON no colon":          {`{"a" 1}`, `f:1:6: is not JSON: invalid character '1'`},
		"JSON bad number":        {`[01]`, `f:1:3: is not JSON`},
		"JSON word":              {"[\n\n nul]", `f:3:2: is not JSON`},
		"JSON depth":             {deep(65), `f:1:65: is nested deeper than 64`},
		"JSON million deep":      {strings.Repeat("[", 1_000_000), `is nested deeper than 64`},
		"JSON surrogate":         {`["\ud83d"]`, `f:1:2: contains half of a surrogate pair`},
		"JSON low surrogate":     {`["\udc00\ud83d"]`, `f:1:2: contains half of a surrogate pair`},
		"JSON two low halves":    {`["\udc00\udc00"]`, `f:1:2: contains half of a surrogate pair`},
		"JSON duplicate of many": {`{"a":0,"b":1,"c":2,"d":3,"e":4,"f":5,"g":6,"h":7,"i":8,"j":9,"k":0,"l":1,"m":2,"n":3,"o":4,"p":5,"q":6,"b":7}`, `f:1:104: b: is there twice`},
		"JSON escaped NUL":       {`["a\u0000"]`, `f:1:2: contains a NUL`},
		"invalid UTF-8":          {"{\n\"a\": \"é\xff\"}", `f:2:8: is not valid UTF-8`},
		"NUL":                    {"a: \x00", `f:1:4: contains a NUL byte`},
		"BOM":                    {"\xef\xbb\xbf{}", `f:1:1: begins with a byte order mark`},
		"YAML duplicate":         {"a: 1\nb:\n  c: 1\n  c: 2\n", `f:4:3: b.c: is there twice`},
		"YAML flow duplicate":    {"a: {c: 1, c: 2}\n", `f:1:11: a.c: is there twice`},
		"YAML anchor":            {"a: &x 1\nb: *x\n", "f:1:4: anchors (&) are not allowed\nf:2:4: aliases (*) are not allowed"},
		"YAML merge":             {"<<: {a: 1}\n", `f:1:1: merge keys (<<) are not allowed`},
		"YAML tag":               {"a: !!str 1\n", `f:1:4: tags (!) are not allowed`},
		"YAML directive":         {"%YAML 1.1\n---\na: 1\n", `f:1:1: directives (%) are not allowed`},
		"YAML two documents":     {"a: 1\n---\nb: 1\n", `f:3:1: holds a second document`},
		"YAML empty":             {"# nothing\n", `f:1:1: is empty`},
		"empty":                  {"", `f:1:1: is empty`},
		"YAML number as name":    {"12: a\n", `f:1:1: the name "12" reads as a number; quote it`},
		"YAML true as name":      {"true: a\n", `f:1:1: the name "true" reads as true or false; quote it`},
		"YAML list as name":      {"? [a]\n: b\n", `f:2:1: is not YAML`},
		"YAML syntax":            {"a: [1\nb: 2\n", `is not YAML`},
		"YAML indent":            {"a: 1\n  b: 2\n", `is not YAML`},
		"YAML depth":             {deepYAML(66), `is nested deeper than 64`},
		"YAML flow depth":        {"a: " + deep(64), `is nested deeper than 64`},
		"YAML very deep":         {"a: " + strings.Repeat("[", 100_000), `is nested deeper than 64`},
		"YAML very deep list":    {strings.Repeat("- ", 100_000) + "a", `is nested deeper than 64`},
		"YAML very deep block":   {deepYAML(1000), `is nested deeper than 64`},
		"YAML too large":         {"#" + strings.Repeat("x", MaxYAML), `write larger documents as JSON`},
		"YAML escaped NUL":       {`a: "x\0"`, `contains a NUL`},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse("f", []byte(tc.text))
			if err == nil {
				err = d.Err()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestDepthLimitIsExact(t *testing.T) {
	for _, open := range []string{"", "#\n"} {
		text := open + strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth)
		if _, err := Parse("f", []byte(text)); err != nil {
			t.Errorf("%d levels after %q: %v", MaxDepth, open, err)
		}
	}
}

func TestManyFaultsAreCounted(t *testing.T) {
	var c []int
	d, err := Parse("f", []byte("["+strings.Repeat(`"a",`, 4999)+`"a"]`))
	if err != nil {
		t.Fatal(err)
	}
	d.Decode(&c)
	fs := d.Err().(Faults)
	if len(fs) != maxFaults+1 || fs[maxFaults].Text != "and 4000 more faults" {
		t.Errorf("%d faults, last %v", len(fs), fs[len(fs)-1])
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "12": 12, "12B": 12, "1KiB": 1024, "64MiB": 64 << 20, "2TiB": 2 << 40} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1MB", "1 MiB", "1.5GiB", "8388608TiB", "1KiBKiB", "1iB"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is %d", text, s)
		}
	}
	for s, want := range map[Size]string{0: "0", 1000: "1000", 1 << 20: "1MiB", 1025: "1025"} {
		if got := s.String(); got != want {
			t.Errorf("%d: %s, want %s", s, got, want)
		}
	}
	for text, want := range map[string]string{"72h": "72h", "15m": "15m", "90s": "1m30s", "0": "0s", "1h10m": "1h10m", "100ms": "100ms", "10h": "10h"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("%s: %s, %v", text, d, err)
		}
	}
}

// TestYAMLThatIsReadAsJSON: a file named YAML says why it is not read so.
func TestYAMLThatIsReadAsJSON(t *testing.T) {
	const why = "what begins with { or [ is read as JSON, not as YAML"
	for file, want := range map[string]bool{"p.yaml": true, "p.yml": true, "p.json": false} {
		if _, err := Parse(file, []byte("{model: opcon}")); err == nil || strings.Contains(err.Error(), why) != want {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestTenMegabytes: what a document costs grows with its size, and not faster.
func TestTenMegabytes(t *testing.T) {
	const big, parts = 10 << 20, 8
	part, _ := parseRows(t, big/parts)
	whole, allocated := parseRows(t, big)
	if whole > 4*parts*part { // were it the square, 8 * parts
		t.Errorf("%v, and an eighth of it %v", whole, part)
	}
	if allocated > 1<<30 {
		t.Errorf("%d MiB allocated", allocated>>20)
	}
}

// parseRows takes so many octets of rows in.
func parseRows(t *testing.T, octets int) (took time.Duration, allocated uint64) {
	t.Helper()
	var b strings.Builder
	b.WriteString(`{"rows":[`)
	for i := 0; b.Len() < octets; i++ {
		fmt.Fprintf(&b, `{"grp":"1","type":"JOBS","name":"PAY.RUN.%d","host":"DB%02d","login":"LOGIN.PAY","rights":"RX"},`, i, i%50)
	}
	b.WriteString(`{}]}`)
	data := []byte(b.String())
	var v struct {
		Rows []struct {
			Grp    string `json:"grp"`
			Type   string `json:"type"`
			Name   string `json:"name"`
			Host   string `json:"host"`
			Login  string `json:"login"`
			Rights string `json:"rights"`
		} `json:"rows"`
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	begin := time.Now()
	d, err := Parse("big.json", data)
	if err != nil {
		t.Fatal(err)
	}
	d.Decode(&v)
	if err := d.Err(); err != nil {
		t.Fatal(err)
	}
	took = time.Since(begin)
	runtime.ReadMemStats(&after)
	t.Logf("%d rows, %v, %d MiB allocated", len(v.Rows), took, (after.TotalAlloc-before.TotalAlloc)>>20)
	if v.Rows[7].Name != "PAY.RUN.7" {
		t.Errorf("row 7 is %+v", v.Rows[7])
	}
	return took, after.TotalAlloc - before.TotalAlloc
}

func TestTooManyValues(t *testing.T) {
	for _, text := range []string{"[0,0,0]", "- 0\n- 0\n- 0"} {
		if _, err := parse("f", []byte(text), 4); err != nil {
			t.Errorf("four values in %q: %v", text, err)
		}
		_, err := parse("f", []byte(text), 3)
		if err == nil || !strings.Contains(err.Error(), "has more than 3 values") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"clients":[{"name":"a","may":["x"]}],"x_y":null}`))
	f.Add([]byte("clients:\n- name: a\n  may: [x, 'y']\n  env: {A: |\n}"))
	f.Add([]byte("a: 'b\n\n c'\n? d\n: - e\n  - |2-\n   f\n"))
	f.Add([]byte(`["\ud83d\ude00", 1e9, -0, {"": {"": []}}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		d, err := Parse("f", data)
		if err != nil {
			if len(err.(Faults)) == 0 {
				t.Error("an error without a fault")
			}
			return
		}
		for i, n := range d.nodes {
			if n.next <= uint32(i) || int(n.next) > len(d.nodes) || n.line == 0 || n.col == 0 {
				t.Fatalf("node %d of %d: %+v", i, len(d.nodes), n)
			}
			if place := d.placeOf(uint32(i)); (place == "") != (i == 0) {
				t.Fatalf("node %d is at %q", i, place)
			}
		}
		var c config
		d.IgnoreX = true
		d.Decode(&c)
		var raw json.RawMessage
		sound := d.Err() == nil
		d.Decode(&raw)
		if !json.Valid(raw) {
			t.Fatalf("raw is not JSON: %q", raw)
		}
		if !sound {
			return
		}
		again, err := Parse("f", raw)
		if err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		again.IgnoreX = true
		var c2 config
		again.Decode(&c2)
		if err := again.Err(); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		c.Note, c2.Note = nil, nil
		if !reflect.DeepEqual(c, c2) {
			t.Fatalf("%q gives %+v, as JSON %+v", data, c, c2)
		}
	})
}
