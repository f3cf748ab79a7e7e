package automic_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/automic"
	"batchwarden/daemon/policy/policytest"
)

func TestFaultyDocuments(t *testing.T) {
	long := func(n int) string { return strings.Repeat("é", n) }
	for name, tc := range map[string]struct{ doc, want string }{
		"unknown member":       {`"user":{}`, `user: is not known`},
		"unknown column":       {`"users":{"U":{"rows":[{"grp":"1","typ":"JOBS"}]}}`, `users.U.rows[0].typ: is not known`},
		"AU1 no group":         {`"users":{"U":{"rows":[{"type":"JOBS"}]}}`, `users.U.rows[0].grp: is required: 1 to 9 or NOT`},
		"AU1 group 0":          {user("1 * X", "0 JOBS X"), `users.U.rows[1].grp: "0" is not one of 1 to 9, NOT`},
		"AU1 group 10":         {user("10 JOBS X"), `grp: "10" is not one of`},
		"AU1 group number":     {`"users":{"U":{"rows":[{"grp":1}]}}`, `users.U.rows[0].grp: must be a text; quote it: "1"`},
		"AU1 unknown right":    {user("1 JOBS RXZ"), `users.U.rows[0].rights: 'Z' is not one of the rights RWXDCSPML`},
		"AU6 unknown type":     {user("1 JOBX X"), `users.U.rows[0].type: "JOBX" is not a type`},
		"AU6 pattern as type":  {user("1 JOB* X"), `type: "JOB*" is not a type`},
		"AU6 type of a list":   {user("1 JOBS,JOBX X"), `type: "JOBX" is not a type`},
		"AU2 undefined group":  {`"users":{"U":{"groups":["G"]}}`, `users.U.groups[0]: the document defines no group "G"`},
		"AU8 group_scope":      {`"group_scope":"none"`, `group_scope: "none" is not one of all, type`},
		"AU8 empty scope":      {`"group_scope":""`, `group_scope: "" is not one of all, type`},
		"AU13 name":            {`"users":{"JDOE/DEPT":` + rows("1 * X", "1 * X", "1 * X", "NOT JOBS X name="+long(201)) + `}`, `users.JDOE/DEPT.rows[3].name: 201 characters, at most 200`},
		"AU13 host of a group": {`"groups":{"G":` + rows("1 * X host="+long(201)) + `}`, `groups.G.rows[0].host: 201 characters, at most 200`},
		"AU13 login_dst":       {user("1 * X login_dst=" + long(201)), `users.U.rows[0].login_dst: 201 characters`},
		"AU13 file":            {user("1 * X file_src=" + long(256)), `users.U.rows[0].file_src: 256 characters, at most 255`},
		"AU28 no name":         {`"objects":{"JOBS":{"access":{}}}`, `objects.JOBS: "JOBS" is not TYPE/NAME`},
		"AU28 unknown type":    {`"objects":{"JOBX/A":{"access":{}}}`, `"JOBX/A" is not TYPE/NAME`},
		"AU28 rights":          {`"objects":{"JOBS/A":{"access":{"U":"Q"}}}`, `objects.JOBS/A.access.U: 'Q' is not one of`},
		"AU28 twice":           {`"objects":{"JOBS/A":{},"jobs/a":{}}`, `is there twice, in other letters`},
		"AU28 folder":          {`"objects":{"FOLD/A":{}}`, `does not begin with \`},
		"empty user":           {`"users":{"":{}}`, `a name is empty`},
		"format":               {`"format":0`, `format: is 0`},
		"null rows":            {`"users":{"U":{"rows":null}}`, `users.U.rows: has no value`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := automic.Parse("d", []byte(`{"model":"automic",`+tc.doc+`}`))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v\nwant %s", err, tc.want)
			}
		})
	}
	for doc, want := range map[string]string{`{}`: `model: is required: "automic"`, `{"model":"opcon"}`: `model: is "opcon", not "automic"`} {
		if _, err := automic.Parse("d", []byte(doc)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", doc, err)
		}
	}
}

func TestLongestColumns(t *testing.T) { // AU13, the side that is accepted
	compile(t, user("1 JOBF X name="+strings.Repeat("é", 200)+" file_dst="+strings.Repeat("é", 255)))
}

func TestFormatNotesAndYAML(t *testing.T) {
	if _, err := automic.Parse("d", []byte(`{"model":"automic","format":2,"new":1}`)); !errors.Is(err, policy.ErrNewer) {
		t.Errorf("a newer format gives %v", err)
	}
	p, err := automic.Parse("d.yaml", []byte(`
model: automic
x_owner: ops
users:
  U:
    rows:
    - {grp: "1", type: JOBS, name: PAY.*, rights: X, x_ticket: 12}
    - {grp: NOT, type: JOBS, name: PAY.ROOT, rights: X}
`))
	if err != nil {
		t.Fatal(err)
	}
	for object, want := range map[string]string{"type=JOBS name=PAY.A": "allow AU8", "type=JOBS name=PAY.ROOT": "deny AU7"} {
		if got := policytest.Answer(p.Decide(policytest.Request(t, ask("X", object)))); got != want {
			t.Errorf("%s: %s, want %s", object, got, want)
		}
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := compile(t, user("1 JOBS X name=PAY.*", "1 JOBS X name=* host=H", "1 LOGIN X name=L*", `1 FOLD RW name=\PROD\*`, "NOT JOBS X name=*ROOT", "1 JOBF X name=* file_src=/d/*"))
	for _, text := range []string{
		ask("X", "type=JOBS name=pay.run host=db01 login=l"),
		ask("X", "type=JOBS name=MY.ROOT host=db01"),
		ask("launch", "name=x host=h login=l1"),
		ask("W", `type=FOLD name=\prod\x`),
		ask("X", `type=JOBF name=F file_src=/d/xyz file_dst=C:/temp/x`),
		ask("create", `type=JOBS template=PAY.RUN folder=\prod`),
	} {
		r := policytest.Request(t, text)
		var d policy.Decision
		if n := testing.AllocsPerRun(100, func() { d = p.Decide(r) }); n != 0 {
			t.Errorf("%s: %v allocations (%s)", text, n, d.Reason)
		}
	}
}

// large writes a document with n rows: 95% group 1, 4% group 2, 1% NOT.
func large(n int, byHost bool) []byte {
	var b strings.Builder
	b.WriteString(`{"model":"automic","users":{"U":{"rows":[`)
	for i := range n {
		grp := "1"
		switch {
		case i%100 == 99:
			grp = "NOT"
		case i%25 == 24:
			grp = "2"
		}
		name, host, login := fmt.Sprintf("JOB.%d", i), "*", "*"
		switch {
		case byHost:
			name, host = "*", fmt.Sprintf("HOST%d", i)
			if i%2 == 0 {
				host, login = "*", fmt.Sprintf("LOGIN%d", i)
			}
		case i%3 == 1:
			name = fmt.Sprintf("PRE%d.*", i)
		case i%3 == 2:
			name = fmt.Sprintf("*.SUF%d", i)
		}
		if grp == "2" {
			name, host, login = "*", "", ""
		}
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"grp":%q,"type":"JOBS","name":%q,"host":%q,"login":%q,"rights":"RX"}`, grp, name, host, login)
	}
	b.WriteString(`]}}}`)
	return []byte(b.String())
}

func TestHundredThousandRows(t *testing.T) {
	for _, byHost := range []bool{false, true} {
		data := large(100_000, byHost)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := time.Now()
		p, err := automic.Parse("d", data)
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(begin)
		runtime.GC()
		runtime.ReadMemStats(&after)
		kept := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		t.Logf("by host %v: %d bytes of rows parsed and indexed in %v, %d bytes kept", byHost, len(data), took, kept)
		if kept > 3*int64(len(data)) {
			t.Errorf("keeps %d bytes, the document has %d", kept, len(data))
		}
		d := p.Decide(policytest.Request(t, ask("X", "type=JOBS name=JOB.0 host=HOST1 login=LOGIN0")))
		if !d.Allowed {
			t.Errorf("%+v", d)
		}
		runtime.KeepAlive(p)
		runtime.KeepAlive(data)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, byHost := range []bool{false, true} {
		for _, n := range []int{10, 100, 1000, 10_000, 100_000} {
			b.Run(fmt.Sprintf("byHost=%v/rows=%d", byHost, n), func(b *testing.B) {
				p, err := automic.Parse("d", large(n, byHost))
				if err != nil {
					b.Fatal(err)
				}
				requests := make([]*policy.Request, min(n, 10_000))
				for i := range requests {
					k := i * (n / len(requests))
					name := fmt.Sprintf("JOB.%d", k)
					if !byHost {
						name = []string{name, fmt.Sprintf("PRE%d.X", k), fmt.Sprintf("X.SUF%d", k)}[k%3]
					}
					if i%2 == 0 {
						name += "!"
					}
					requests[i] = policytest.Request(b, ask("X", fmt.Sprintf("type=JOBS name=%s host=HOST%d login=LOGIN%d", name, k, k)))
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					p.Decide(requests[i%len(requests)])
					i++
				}
			})
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"model":"automic",`+user("1 JOBS,FOLD RX name=A?*,*B host=H", `NOT * X name=\P\*`)+`}`), "JOBS", "AB", "/a/b")
	f.Add([]byte("model: automic\nusers: {U: {rows: [{grp: NOT, type: '*'}]}}\n"), "FOLD", `\P`, `C:\x`)
	f.Fuzz(func(t *testing.T, doc []byte, kind, name, file string) {
		if len(doc) > 1<<14 {
			return
		}
		p, err := automic.Parse("d", doc)
		if err != nil {
			return
		}
		r := policy.Request{Subject: policy.Subject{User: "U"}, Action: "X"}
		r.Object = policy.Object{Given: policy.MemberType | policy.MemberName | policy.MemberFileSrc, Type: kind, Name: name, FileSrc: file}
		d := p.Decide(&r)
		if e, trace := p.Explain(&r); d.Allowed != e.Allowed || d.Rule != e.Rule || trace.String() == "" {
			t.Fatalf("%+v, explained %+v", d, e)
		}
	})
}
