package audit

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The journal gets each record as it stands in the log; one that does not
// answer costs nobody anything.
func TestJournald(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "journal")
	l, err := Open(filepath.Join(dir, "audit.jsonl"), Options{Sync: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	l.copy = newCopier(socket)
	add := func(n int) {
		t.Helper()
		for range n {
			if err := l.Append(&Record{Kind: Launch, DecisionID: "D"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(copiesWaiting + 10) // nobody takes them, and nobody waits
	if l.Lost() != 10 {
		t.Errorf("lost %d, want 10", l.Lost())
	}
	journal, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer journal.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	if err := journal.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2*maxRecord)
	for i := range copiesWaiting {
		n, err := journal.Read(buf)
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		if got := string(buf[:n]); !strings.HasPrefix(got, "PRIORITY=6\nSYSLOG_IDENTIFIER=batchwarden-audit\nMESSAGE={\"seq\":") ||
			!strings.HasSuffix(got, "}\n") || strings.Count(got, "\n") != 3 {
			t.Fatalf("got %q", got)
		}
	}
	if l.Lost() != 10 {
		t.Errorf("lost %d, want 10", l.Lost())
	}
	journal.Close()
	add(3)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if l.Lost() != 13 {
		t.Errorf("without the journal: lost %d, want 13", l.Lost())
	}
}
