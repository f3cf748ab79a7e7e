package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func usual() *Record {
	return &Record{
		Time: time.Now(), Kind: Launch, DecisionID: "5CX3LNQCQ2WGF6UV6TCD4UGVPO", Verdict: Allow, Rule: "OC3", Reason: "role payroll-ops grants unix users/payroll on DB01_LSAM",
		Client: "opcon-lsam", Peer: &Peer{PID: 4711, UID: 1001, GID: 1001, User: "opcon"}, Realm: "opcon", Subject: &Subject{User: "jdoe"},
		Action: "launch", BatchUser: "payroll", Username: "payroll", CredentialVersion: 7, PolicyVersion: 12,
		Job: &Job{ID: "lsam-000123", CommandSHA256: "5CX3LNQCQ2WGF6UV6TCD4UGVPO5CX3LNQCQ2WGF6UV6TCD4UGVPO5CX3LNQCQ2WG"},
	}
}

// TestVerifySpeed: a million records in 10 s, shown with the tenth part. A
// machine that is that slow at hashing alone is no judge.
func TestVerifySpeed(t *testing.T) {
	if testing.Short() {
		return // the race detector makes everything but hashing slow
	}
	const records, most = 100_000, time.Second
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l := fill(t, file, Options{Rotate: 16 << 20}, 0)
	for range records {
		if err := l.Append(usual()); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// The best of some tries: others may have the processors.
	hashing, took := time.Hour, time.Hour
	for range 5 {
		began := time.Now()
		sha256.Sum256(text)
		hashing = min(hashing, time.Duration(float64(time.Since(began))*50e6/float64(len(text)))) // of some 50 MB
		began = time.Now()
		v := sound(t, file)
		took = min(took, time.Since(began))
		if v.Records < records {
			t.Errorf("%+v", v)
		}
		if took <= most {
			break
		}
	}
	t.Logf("%d records in %v; hashing alone %v", records, took, hashing)
	if took > most && took > 20*hashing {
		t.Errorf("%d records took %v, hashing alone %v; want %v", records, took, hashing, most)
	}
}

func BenchmarkAppend(b *testing.B) {
	l, err := Open(filepath.Join(b.TempDir(), "audit.jsonl"), Options{Sync: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	r := usual()
	for b.Loop() {
		if err := l.Append(r); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChain is what being chained costs a record.
func BenchmarkChain(b *testing.B) {
	line := make([]byte, 600)
	var t tail
	text := make([]byte, 0, 64)
	for b.Loop() {
		t = t.after(line)
		text = hex.AppendEncode(text[:0], t.sum[:])
	}
}

func BenchmarkVerify(b *testing.B) {
	file := filepath.Join(b.TempDir(), "audit.jsonl")
	l, err := Open(file, Options{Sync: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	for range 10_000 {
		if err := l.Append(usual()); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(l.size)
	for b.Loop() {
		if v, err := Verify(file, nil); err != nil || v.Fault != nil {
			b.Fatal(v, err)
		}
	}
}
