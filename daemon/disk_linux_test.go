package daemon_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// A diskBed is a bed whose daemon has its state on a small file system of its
// own.
type diskBed struct {
	*testbed.Bed
	t *testing.T
}

// newDiskBed starts one. With the audit file elsewhere only the local vault
// suffers from what happens to the small file system.
func newDiskBed(t *testing.T, auditElsewhere bool) *diskBed {
	t.Helper()
	b := &diskBed{testbed.New(t, testbed.Options{}), t}
	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	b.mount("-t", "tmpfs", "-o", fmt.Sprintf("size=256k,mode=700,uid=%d,gid=%d", b.Accounts.Daemon.UID, b.Accounts.Daemon.GID), "none", b.State)
	t.Cleanup(func() {
		if err := b.Daemon.Stop(); err != nil {
			t.Error(err)
		}
		if r := b.Command(testbed.Root, "umount", b.State); r.Code != 0 {
			t.Error(r.Err)
		}
	})
	reconfigure(t, b.Bed, func(yaml string) string {
		if !auditElsewhere {
			return yaml
		}
		dir := filepath.Join(b.Root, "audit")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, int(b.Accounts.Daemon.UID), int(b.Accounts.Daemon.GID))); err != nil {
			t.Fatal(err)
		}
		return replaceLine(yaml, "audit:", "audit: {file: "+dir+"/audit.jsonl}")
	})
	if err := b.WaitOnline(); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *diskBed) mount(args ...string) {
	b.t.Helper()
	if r := b.Command(testbed.Root, append([]string{"mount"}, args...)...); r.Code != 0 {
		b.t.Fatal(r.Err)
	}
}

// fill leaves no room on the small file system, and returns how to make some.
func (b *diskBed) fill() (empty func()) {
	b.t.Helper()
	filler := filepath.Join(b.State, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
		b.t.Fatalf("the disk does not fill: %v", err)
	}
	return func() {
		if err := os.Remove(filler); err != nil {
			b.t.Fatal(err)
		}
	}
}

// change puts a new password of payroll's into Vault, and some documents that
// are too long for the last page of a file.
func (b *diskBed) change() (password string) {
	b.t.Helper()
	for i := range 8 {
		if err := b.PutDocument(fmt.Sprintf("long-%d", i), map[string]any{
			"username": b.Accounts.Payroll.Name, "password": strings.Repeat(rand.Text(), 30),
		}); err != nil {
			b.t.Fatal(err)
		}
	}
	password = "pw-" + rand.Text()
	if err := b.PutBatchUser("payroll", password); err != nil {
		b.t.Fatal(err)
	}
	return password
}

// unwritable is what status says of a local vault that cannot be written; ""
// when it can. The problem says the same.
func (b *diskBed) unwritable() string {
	b.t.Helper()
	s, err := b.Status()
	if err != nil {
		b.t.Fatal(err)
	}
	problem := slices.ContainsFunc(s.Problems, func(f wire.Finding) bool {
		return f.Code == wire.LocalVaultUnwritable && f.Detail == s.LocalVault.Unwritable
	})
	if problem != (s.LocalVault.Unwritable != "") {
		b.t.Errorf("local vault: %+v; problems: %+v", s.LocalVault, s.Problems)
	}
	return s.LocalVault.Unwritable
}

// has wants payroll's password, and a launch.
func (b *diskBed) has(when, password string) {
	b.t.Helper()
	if got, a := b.password(); got != password {
		b.t.Errorf("%s: %d %s, want the password in force", when, a.Status, a.Code())
	}
	if job, _ := run(b.t, b.Bed, nil); job.State != wire.Exited {
		b.t.Errorf("%s: launch: %+v", when, job)
	}
}

func (b *diskBed) password() (string, testbed.Answer) {
	b.t.Helper()
	return password(b.t, b.Bed)
}

// fails syncs, wants to hear that what came could not be written, and that it
// is in force.
func (b *diskBed) fails(when, why, password string) {
	b.t.Helper()
	if s, err := b.Sync(); err != nil || s.Outcome != wire.LocalVaultUnwritable {
		b.t.Errorf("%s: sync: %+v, %v, want %s", when, s, err, wire.LocalVaultUnwritable)
	}
	if u := b.unwritable(); !strings.Contains(u, why) {
		b.t.Errorf("%s: status says %q, want %q", when, u, why)
	}
	b.has(when, password)
}

// restartAlone starts the daemon anew while nobody can reach Vault.
func (b *diskBed) restartAlone() {
	b.t.Helper()
	if err := b.StopVault(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.RestartDaemon(); err != nil {
		b.t.Fatal(err)
	}
}

// On a full disk the service goes on from memory and says so; with room again
// it writes what it has.
func TestFullDisk(t *testing.T) {
	b := newDiskBed(t, true)
	empty := b.fill()
	next := b.change()
	b.fails("full", "no space left on device", next)
	if err := b.DeleteBatchUser("reports"); err != nil {
		t.Fatal(err)
	}
	next = b.change()
	b.fails("full for longer", "no space left on device", next)
	if _, there := batchUsers(t, b.Bed)["reports"]; there {
		t.Error("what was revoked is still there, as it could not be written")
	}
	if err := b.RestartDaemon(); err != nil {
		t.Fatalf("start on a full disk: %v", err)
	}
	b.fails("started on a full disk", "no space left on device", next)

	empty()
	if s := synced(t, b.Bed); len(s.Faults) > 0 {
		t.Errorf("with room again: %+v", s)
	}
	if u := b.unwritable(); u != "" {
		t.Errorf("with room again: status says %q", u)
	}
	b.restartAlone()
	b.has("from the disk", next)
	users := batchUsers(t, b.Bed)
	if _, there := users["reports"]; there || users["long-7"].State != "ready" {
		t.Errorf("from the disk: %+v", users)
	}
}

// The same in a directory that cannot be written at all.
func TestReadOnlyDisk(t *testing.T) {
	b := newDiskBed(t, true)
	before := b.Passwords()[0]
	if err := b.Daemon.Stop(); err != nil { // a file that is open for writing would keep it writable
		t.Fatal(err)
	}
	b.mount("-o", "remount,ro", b.State)
	if err := b.StopVault(); err != nil {
		t.Fatal(err)
	}
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitHealthy(); err != nil {
		t.Fatal(err)
	}
	b.has("read-only, without Vault", before)
	if err := b.ResumeVault(); err != nil {
		t.Fatal(err)
	}
	next := b.change()
	b.fails("read-only", "read-only file system", next)

	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	b.mount("-o", "remount,rw", b.State)
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitOnline(); err != nil {
		t.Fatal(err)
	}
	if u := b.unwritable(); u != "" {
		t.Errorf("writable again: status says %q", u)
	}
	b.restartAlone()
	b.has("from the disk", next)
}

// What cannot be written down is not done, and is done again as soon as it can
// be, without a restart.
func TestFullDiskWithTheAuditFileOnIt(t *testing.T) {
	b := newDiskBed(t, false)
	empty := b.fill()
	// The last page of the audit file has room for a few records.
	last := testbed.Answer{Status: 200}
	for i := 0; last.Status == 200 && i < 50; i++ {
		_, last = b.password()
	}
	want(t, last, 503, wire.AuditUnavailable)
	if s, err := b.Status(); err != nil || !slices.ContainsFunc(s.Problems, func(f wire.Finding) bool { return f.Code == "audit.room_low" }) {
		t.Errorf("status: %+v, %v; want that there is no room", s.Problems, err)
	}
	want(t, call(t, b.Bed, b.Accounts.LSAM, "POST", "/v1/jobs", body(nil)), 503, wire.AuditUnavailable)
	if a := call(t, b.Bed, testbed.Root, "GET", "/v1/health", nil); a.Status != 503 {
		t.Errorf("health: %d %s", a.Status, a.Body)
	}
	// A configuration that cannot be written down is not taken, but tried again, and a signal does not wait for that.
	first := configText(t, b.Bed)
	replace(t, b.ConfigFile(), withClient(first, "more", b.Accounts.Stranger.Name))
	want(t, call(t, b.Bed, testbed.Root, "POST", "/v1/reload", nil), 503, wire.AuditUnavailable)
	replace(t, b.ConfigFile(), first)
	ok(t, b.Daemon.Signal(syscall.SIGHUP))
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(b.Daemon.LogText(), "configuration read again: nothing is another than before"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("SIGHUP: the configuration was not read again")
		}
	}
	next := b.change()
	if s, err := b.Sync(); err != nil || s.Outcome != wire.LocalVaultUnwritable {
		t.Errorf("sync: %+v, %v", s, err)
	}
	empty()
	synced(t, b.Bed)
	b.has("with room again", next)
	if u := b.unwritable(); u != "" {
		t.Errorf("with room again: status says %q", u)
	}
	if a := call(t, b.Bed, testbed.Root, "GET", "/v1/health", nil); a.Status != 200 {
		t.Errorf("health: %d %s", a.Status, a.Body)
	}
}
