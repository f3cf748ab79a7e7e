package keeper

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"sync"
	"testing"

	"batchwarden/platform/launch"
)

// TestPinned: what the limits looked at is what runs, or nothing does.
func TestPinned(t *testing.T) {
	needRoot(t)
	c := configure(t)
	path := script(t, "/mnt/home/payroll/pinned", "#!/bin/sh\necho looked at\n", jobUID, 0o755)
	var seen, sum string
	swap := func() error { return nil }
	var mu sync.Mutex // guards the three: the launcher asks in goroutines of its own
	c.Allow = func(a Ask) error {
		mu.Lock()
		defer mu.Unlock()
		var err error
		if seen, err = a.Command.Path(); err == nil {
			sum, err = a.Command.SHA256()
		}
		return errors.Join(err, swap())
	}
	b := start(t, c)
	want(t, "output", b.says("same", path), "looked at\n")
	mu.Lock()
	want(t, "path", seen, path)
	content := sha256.Sum256([]byte("#!/bin/sh\necho looked at\n"))
	want(t, "sum", sum, hex.EncodeToString(content[:]))
	mu.Unlock()
	for id, change := range map[string]func() error{
		"replaced": func() error {
			return errors.Join(os.WriteFile(path+".new", []byte("#!/bin/sh\necho other\n"), 0o755), os.Rename(path+".new", path))
		},
		"changed": func() error { return os.WriteFile(path, []byte("#!/bin/sh\necho changed\n"), 0o755) },
	} {
		mu.Lock()
		swap = change
		mu.Unlock()
		job := b.run(spec(id, path))
		if job.State != launch.StateFailed || job.Code != launch.CodeForbidden {
			t.Errorf("%s: got %+v", id, job)
		}
	}
	mu.Lock()
	swap = func() error { return nil }
	mu.Unlock()
	b.says("lookup", "cat", "/dev/null")
	mu.Lock()
	defer mu.Unlock()
	want(t, "in PATH", seen, "/usr/bin/cat")
}

// TestNotFoundByLimits: a command that the limits want to see and nobody finds is refused there.
func TestNotFoundByLimits(t *testing.T) {
	needRoot(t)
	c := configure(t)
	c.Allow = func(a Ask) error {
		_, err := a.Command.Path()
		return err
	}
	b := start(t, c)
	conn, _ := b.requester(agentUID)
	b.refused(conn, spec("missing", "no-such-command"), launch.CodeRefused, "no-such-command")
}
