package audit

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whatever is in a file, reading it ends, and going on with it spoils nothing
// that was sound.
func FuzzFile(f *testing.F) {
	for _, name := range []string{"testdata/log/audit.000000000001.jsonl", "testdata/log/audit.jsonl"} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(text[:len(text)-1])
		f.Add(text[:len(text)-20])
		f.Add(append(text[:len(text):len(text)], "x\ny"...))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		file := filepath.Join(dir, "audit.jsonl")
		write(t, file, text)
		// What looks like a reserve is not taken anew: that would be most of the time.
		var r room
		r.look(dir)
		write(t, filepath.Join(dir, "audit.reserve"), nil)
		if err := os.Truncate(filepath.Join(dir, "audit.reserve"), r.reserve()); err != nil {
			t.Fatal(err)
		}
		before, err := Verify(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		if err := Tail(t.Context(), file, 10, false, func([]byte) (bool, bool) { return true, false }, func([]byte) error { told++; return nil }); err != nil {
			t.Fatal(err)
		}
		if before.Fault == nil && told != int(min(10, before.Records)) {
			t.Fatalf("%d records told of %d", told, before.Records)
		}
		l, err := Open(file, Options{Sync: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer l.closeFile()
		for range 2 {
			if err := l.Append(&Record{Kind: Launch}); err != nil && l.end.seq < 1<<63 {
				t.Fatal(err)
			}
		}
		after, err := Verify(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		if before.Fault == nil && before.Records > 0 && after.Fault != nil {
			t.Fatalf("sound before (%+v), and then: %+v", before, after.Fault)
		}
		if before.Fault == nil && before.Records > 0 && after.Last != before.Last+2 && after.Last != before.Last+3 {
			t.Fatalf("from %d to %d", before.Last, after.Last)
		}
	})
}
