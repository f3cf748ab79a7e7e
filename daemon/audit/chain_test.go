package audit

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden file anew")

// fill opens a log and appends n records of some 200 octets.
func fill(t *testing.T, file string, o Options, n int) *Log {
	t.Helper()
	if o.Sync == 0 {
		o.Sync = time.Hour
	}
	l, err := Open(file, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.closeFile() }) // some tests close it
	for i := range n {
		if err := l.Append(&Record{Kind: Launch, Verdict: Allow, DecisionID: fmt.Sprint("d", l.end.seq), Job: &Job{ID: fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// sound verifies a log without a fault and returns what was found.
func sound(t *testing.T, file string) *Findings {
	t.Helper()
	v, err := Verify(file, func(line []byte) error {
		if !json.Valid(line) {
			return fmt.Errorf("not JSON: %q", line)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if v.Fault != nil {
		t.Fatalf("%+v", *v.Fault)
	}
	return v
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".reserve") {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.jsonl")
	l := fill(t, file, Options{Rotate: 2000, Keep: 3}, 100)
	end := l.end
	if err := l.closeFile(); err != nil {
		t.Fatal(err)
	}
	got := files(t, dir)
	if len(got) != 4 || got[3] != "audit.jsonl" || !strings.HasPrefix(got[0], "audit.0000000000") {
		t.Fatalf("files: %v", got)
	}
	v := sound(t, file)
	if v.Last != end.seq || v.First == 1 || v.Records != v.Last-v.First+1 || len(v.Files) != 4 || len(v.Notes) != 1 {
		t.Errorf("%+v", v)
	}

	// The next start goes on, with other settings too.
	l = fill(t, file, Options{Rotate: 2000, Keep: 1}, 30)
	if l.end.seq <= end.seq+30 || len(files(t, dir)) != 2 {
		t.Errorf("at %d after %d; files %v", l.end.seq, end.seq, files(t, dir))
	}
	if v := sound(t, file); v.Last != l.end.seq {
		t.Errorf("%+v", v)
	}
}

// A file that cannot be rotated goes on, and that is seen; then it is rotated.
func TestRotationFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.jsonl")
	l := fill(t, file, Options{Rotate: 2000}, 2)
	inTheWay := filepath.Join(l.names.rotated(1), "x")
	if err := os.MkdirAll(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	more := func() {
		t.Helper()
		for range 20 {
			if err := l.Append(&Record{Kind: Launch, Reason: strings.Repeat("x", maxRecord/16)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if more(); l.first != 1 || !strings.Contains(l.Low(), "cannot be begun") {
		t.Errorf("first %d, %q", l.first, l.Low())
	}
	if err := os.RemoveAll(l.names.rotated(1)); err != nil {
		t.Fatal(err)
	}
	if more(); l.first == 1 || l.Low() != "" {
		t.Errorf("first %d, %q", l.first, l.Low())
	}
	if v := sound(t, file); v.First != 1 || v.Last != l.end.seq || len(v.Notes) != 0 {
		t.Errorf("%+v", v)
	}
}

// Each state that a crash in the middle of a rotation can leave.
func TestCrashInRotation(t *testing.T) {
	for name, crash := range map[string]func(t *testing.T, n names, first uint64){
		"the next file is empty": func(t *testing.T, n names, _ uint64) { write(t, n.next(), nil) },
		"the next file is half a line": func(t *testing.T, n names, _ uint64) {
			write(t, n.next(), []byte(`{"seq":11,"prev":"00`))
		},
		"the old file has its new name": func(t *testing.T, n names, first uint64) {
			write(t, n.next(), []byte(`{"seq":11,"prev":"00`))
			if err := os.Rename(n.current(), n.rotated(first)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "audit.jsonl")
			l := fill(t, file, Options{Rotate: 2000}, 20)
			last := l.end.seq
			if err := l.closeFile(); err != nil {
				t.Fatal(err)
			}
			crash(t, l.names, l.first)
			l = fill(t, file, Options{Rotate: 2000}, 20)
			if v := sound(t, file); v.First != 1 || v.Last != l.end.seq || l.end.seq < last+20 {
				t.Errorf("%+v, %d before the crash", v, last)
			}
			for _, f := range files(t, l.names.dir) {
				if strings.Contains(f, "next") {
					t.Errorf("%s is left", f)
				}
			}
		})
	}
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A crash may leave any beginning of what was written last.
func TestEveryCut(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.jsonl")
	fill(t, file, Options{}, 3)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head := bytes.IndexByte(text, '\n') + 1 // this one is on the disk before anybody sees the file
	for cut := head; cut <= len(text); cut++ {
		write(t, file, text[:cut])
		whole := text[cut-1] == '\n'
		if v := sound(t, file); (len(v.Notes) == 0) != whole {
			t.Fatalf("cut at %d, before the next start: %+v", cut, v)
		}
		l := fill(t, file, Options{}, 2)
		v := sound(t, file)
		if (len(v.Notes) == 0) != whole || v.Last != l.end.seq {
			t.Fatalf("cut at %d: %+v", cut, v)
		}
		if err := l.file.Close(); err != nil { // and no flush: there are many
			t.Fatal(err)
		}
	}
	// What a power failure leaves on some file systems: the length, and nothing in it.
	write(t, file, append(bytes.Clone(text[:head]), make([]byte, 300_000)...))
	fill(t, file, Options{}, 2)
	if v := sound(t, file); v.Last != 4 || len(v.Notes) != 1 {
		t.Errorf("%+v", v)
	}
}

// What is no log of ours is kept, and said.
func TestAside(t *testing.T) {
	for name, text := range map[string]string{
		"an older version's": `{"time":"2026-01-02T03:04:05Z","kind":"launch"}` + "\n",
		"half a line":        `{"seq":1,"pr`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "audit.jsonl")
			write(t, file, []byte(text))
			fill(t, file, Options{}, 2)
			v := sound(t, file)
			if v.Last != 3 || len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "audit.aside-") {
				t.Errorf("%+v", v)
			}
			if got := files(t, dir); len(got) != 2 {
				t.Errorf("files: %v", got)
			}
		})
	}
	t.Run("not a file", func(t *testing.T) {
		if _, err := Open("/dev/null", Options{}); err == nil {
			t.Error("opened")
		}
		if info, err := os.Stat("/dev/null"); err != nil || info.Mode().IsRegular() {
			t.Fatal("it was replaced")
		}
	})
	t.Run("a link", func(t *testing.T) {
		dir := t.TempDir()
		real := filepath.Join(dir, "real", "log")
		if err := os.Mkdir(filepath.Dir(real), 0o700); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(dir, "audit.jsonl")
		write(t, real, nil)
		if err := os.Symlink(real, link); err != nil {
			t.Fatal(err)
		}
		fill(t, link, Options{Rotate: 500}, 10)
		if v := sound(t, link); v.Last < 11 || len(v.Files) < 2 {
			t.Errorf("%+v", v)
		}
		if info, err := os.Lstat(link); err != nil || info.Mode().IsRegular() {
			t.Error("the link was replaced by a file")
		}
	})
	t.Run("a directory that is not there", func(t *testing.T) {
		if _, err := Open(filepath.Join(t.TempDir(), "none", "audit.jsonl"), Options{}); err == nil {
			t.Error("opened")
		}
	})
}

// The position in the launcher's journal is what the log itself says.
func TestLastEnd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	o := Options{Rotate: 3000, Keep: 1}
	var l *Log
	end := func(want uint64) {
		t.Helper()
		if l = fill(t, file, o, 0); l.LastEnd() != want {
			t.Errorf("got %d, want %d", l.LastEnd(), want)
		}
	}
	end(0)
	for _, seq := range []uint64{7, 9} {
		if err := l.Append(&Record{Kind: JobEnded, Job: &Job{ID: "a", EndSeq: seq}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append(&Record{Kind: Forget, Job: &Job{ID: "a", EndSeq: 99}}); err != nil {
		t.Fatal(err)
	}
	end(9)
	fill(t, file, o, 100) // over rotations, and the file with the end is gone
	end(9)
}

func TestVerifyNamesTheFault(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "audit.jsonl")
	l := fill(t, file, Options{Rotate: 1500}, 40)
	if err := l.closeFile(); err != nil {
		t.Fatal(err)
	}
	n := l.names
	firsts, err := n.full()
	if err != nil || len(firsts) < 4 {
		t.Fatal(firsts, err)
	}
	second := n.rotated(firsts[1])
	edit := func(f string, change func(lines [][]byte) [][]byte) func() {
		return func() {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			write(t, f, bytes.Join(change(bytes.SplitAfter(text, []byte("\n"))), nil))
		}
	}
	for _, c := range []struct {
		name string
		do   func()
		file string
		line int
		seq  uint64
		why  string
	}{
		{"a record is changed", edit(second, func(l [][]byte) [][]byte { l[1] = bytes.Replace(l[1], []byte("allow"), []byte("deny"), 1); return l }),
			second, 3, firsts[1] + 1, "is not what it was"},
		{"a record is gone", edit(second, func(l [][]byte) [][]byte { return append(l[:2:2], l[3:]...) }), second, 3, firsts[1] + 2, "missing between"},
		{"two change places", edit(second, func(l [][]byte) [][]byte { l[1], l[2] = l[2], l[1]; return l }), second, 2, firsts[1] + 1, "missing between"},
		{"a record stands twice", edit(second, func(l [][]byte) [][]byte { return append(l[:2:2], l[1:]...) }), second, 3, firsts[1] + 1, "comes after record"},
		{"a line is no record", edit(second, func(l [][]byte) [][]byte { l[1] = []byte("x\n"); return l }), second, 2, firsts[1] + 1, "is no record"},
		{"a line is put in", edit(second, func(l [][]byte) [][]byte { l[1] = append([]byte("x\n"), l[1]...); return l }), second, 2, firsts[1] + 1, "is no record"},
		{"a very long line is put in", edit(second, func(l [][]byte) [][]byte {
			return append(l[:1:1], append([][]byte{append(bytes.Repeat([]byte("x"), 3<<20), '\n')}, l[1:]...)...)
		}),
			second, 2, firsts[1] + 1, "is no record"},
		{"the first record of a file is gone", edit(second, func(l [][]byte) [][]byte { return l[1:] }), second, 1, firsts[1] + 1, "has to begin"},
		{"a file is gone", func() { _ = os.Remove(second) }, n.rotated(firsts[2]), 1, firsts[1], "missing between"},
		{"the first file is gone", func() { _ = os.Remove(n.rotated(firsts[0])) }, second, 1, 1, "not yet time to remove"},
		{"a file has another's name", func() { _ = os.Rename(second, n.rotated(firsts[1]+1)) }, n.rotated(firsts[1] + 1), 1, firsts[1], "its name says"},
		{"a full file's end is cut", edit(second, func(l [][]byte) [][]byte { return l[:2] }), n.rotated(firsts[2]), 1, firsts[1] + 2, "missing between"},
		{"half a line in a full file", edit(second, func(l [][]byte) [][]byte { return append(l, []byte(`{"seq":`)) }), second, int(firsts[2]-firsts[1]) + 1, firsts[2], "is no record"},
		{"a format to come", edit(file, func(l [][]byte) [][]byte {
			l[0] = bytes.Replace(l[0], []byte(`"format":1`), []byte(`"format":2`), 1)
			return l
		}),
			file, 1, l.first, "format 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			keep := t.TempDir()
			if err := os.CopyFS(keep, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				if err := os.CopyFS(dir, os.DirFS(keep)); err != nil {
					t.Fatal(err)
				}
			}()
			c.do()
			v, err := Verify(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			if f := v.Fault; f == nil || f.File != c.file || f.Line != c.line || f.Seq != c.seq || !strings.Contains(f.Why, c.why) {
				t.Errorf("got %+v, want %s:%d, record %d, %s", f, c.file, c.line, c.seq, c.why)
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		if v := sound(t, file); v.First != 1 || v.FirstTime.IsZero() || v.LastTime.IsZero() || len(v.Notes) != 0 {
			t.Errorf("%+v", v)
		}
	})
	t.Run("one full file alone", func(t *testing.T) {
		if v := sound(t, second); v.First != firsts[1] || v.Last != firsts[2]-1 || len(v.Files) != 1 {
			t.Errorf("%+v", v)
		}
	})
}

// TestGolden holds FORMAT.md's example and the code against each other: these
// octets are read for as long as there is format 1.
func TestGolden(t *testing.T) {
	at := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	zero := 0
	v := held(t, "testdata/log", Options{Rotate: 800}, []*Record{
		{Time: at, Kind: Launch, DecisionID: "D1", Verdict: Allow, Client: "lsam", Peer: &Peer{PID: 7, UID: 1000, GID: 1000, User: "opcon", Exe: "/opt/lsam"},
			Realm: "opcon", Subject: &Subject{User: "jdoe"}, Action: "launch", BatchUser: "payroll", Username: "pay", CredentialVersion: 3, PolicyVersion: 2,
			Job: &Job{ID: "j1", CommandSHA256: "c0"}},
		{Time: at.Add(time.Second), Kind: JobEnded, DecisionID: "D1", Client: "lsam", Job: &Job{ID: "j1", State: "exited", ExitCode: &zero, EndSeq: 5}},
		{Time: at.Add(2 * time.Second), Kind: Refused, Verdict: Deny, Code: "caller.unknown", Peer: &Peer{UID: 99, GID: 99}, Count: 12, Since: at},
	})
	if v.First != 1 || v.Last != 5 || len(v.Files) != 2 || len(v.Notes) != 0 {
		t.Errorf("%+v", v)
	}
}

// TestGoldenService is TestGolden for the records about the service itself.
func TestGoldenService(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	program := &Service{Version: "1.0.0", Commit: "5eed", Boot: "b007"}
	v := held(t, "testdata/service", Options{}, []*Record{
		{Time: at, Kind: Started, Service: program, Config: &Config{SHA256: "a1", By: ByStart}},
		{Time: at.Add(time.Second), Kind: ConfigChanged, Config: &Config{SHA256: "b2", Old: "a1", By: BySignal, Changed: []string{"clients.lsam", "log.level"}, Restart: []string{"machine"}}},
		{Time: at.Add(2 * time.Second), Kind: ConfigRefused, Operator: true, Peer: &Peer{PID: 7, User: "root"},
			Config: &Config{SHA256: "c3", Old: "b2", By: ByOperator, Faults: []string{"/etc/batchwarden/batchwarden.yaml:3:1: machin"}}},
		{Time: at.Add(3 * time.Second), Kind: Reload, Verdict: Deny, Code: "caller.forbidden", Client: "lsam", Peer: &Peer{UID: 1000, GID: 1000}},
		{Time: at.Add(4 * time.Second), Kind: Stopped, Service: program, Reason: "asked to"},
	})
	if v.Last != 6 || len(v.Notes) != 0 {
		t.Errorf("%+v", v)
	}
}

// held writes the records, which has to give the log in golden, and returns what is found in that.
func held(t *testing.T, golden string, o Options, records []*Record) *Findings {
	t.Helper()
	dir := t.TempDir()
	file, old := filepath.Join(dir, "audit.jsonl"), filepath.Join(golden, "audit.jsonl")
	l := fill(t, file, o, 0)
	for _, r := range records {
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	if *update {
		_ = os.RemoveAll(golden)
		if err := os.CopyFS(golden, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(filepath.Join(golden, "audit.reserve"))
	}
	var got, want []Line
	collect := func(to *[]Line) func([]byte) error {
		return func(line []byte) error {
			var r Line
			if err := json.Unmarshal(line, &r); err != nil {
				return err
			}
			if r.Kind == Begun { // its time is the clock's, and so the sums are others
				r.Time = time.Time{}
			}
			r.Prev = ""
			*to = append(*to, r)
			return nil
		}
	}
	for file, to := range map[string]*[]Line{file: &got, old: &want} {
		if _, err := Verify(file, collect(to)); err != nil {
			t.Fatal(err)
		}
	}
	if g, w := fmt.Sprint(jsonOf(t, got)), fmt.Sprint(jsonOf(t, want)); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
	return sound(t, old)
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
