package daemon_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// Problems of the local vault.
const (
	foreign  = "local_vault.foreign"
	wentBack = "local_vault.went_back"
)

// becomeMachine gives this host another identity, in the tests' own /etc.
func becomeMachine(t *testing.T) {
	t.Helper()
	const file = "/etc/machine-id"
	before, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(hex.EncodeToString(id)+"\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0o444); err != nil {
			t.Error(err)
		}
	})
}

// problem is what status says under the code, "" when it says nothing.
func problem(t *testing.T, b *testbed.Bed, code string) string {
	t.Helper()
	s, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(s.Problems, func(f wire.Finding) bool { return f.Code == code }); i >= 0 {
		return s.Problems[i].Detail
	}
	return ""
}

// restartStopped changes files while the daemon does not run.
func restartStopped(t *testing.T, b *testbed.Bed, change func() error) {
	t.Helper()
	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := change(); err != nil {
		t.Fatal(err)
	}
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
}

// A state directory that was copied to another machine opens nothing there,
// with or without its key; everything is read from Vault anew.
func TestStateOfAnotherMachine(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	vault := filepath.Join(b.State, "vault")
	becomeMachine(t)
	restartStopped(t, b, func() error { return os.RemoveAll(vault) }) // one that knows its host
	if err := b.WaitOnline(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"with its key":    func() error { return nil },
		"without its key": func() error { return os.Remove(filepath.Join(b.State, "key")) },
	} {
		t.Run(name, func(t *testing.T) {
			becomeMachine(t)
			if err := b.StopVault(); err != nil {
				t.Fatal(err)
			}
			var theirs []byte
			restartStopped(t, b, func() (err error) {
				theirs, err = os.ReadFile(filepath.Join(vault, "vault.log"))
				return errors.Join(err, change())
			})
			if err := b.WaitAnswer(); err != nil {
				t.Fatal(err)
			}
			if users := batchUsers(t, b); len(users) != 0 {
				t.Errorf("from another machine's vault: %+v", users)
			}
			if got, a := password(t, b); a.Status == 200 {
				t.Errorf("a password of %d octets from another machine's vault", len(got))
			}
			s, err := b.Status()
			if err != nil || s.State != wire.StateStarting || s.LocalVault.Foreign == "" || s.LocalVault.Records != 0 {
				t.Errorf("status: %+v, %v", s, err)
			}
			if p := problem(t, b, foreign); p == "" || p != s.LocalVault.Foreign {
				t.Errorf("problem: %q", p)
			}
			kept := false
			names, err := filepath.Glob(filepath.Join(vault, "quarantine-*"))
			for _, name := range names {
				text, err := os.ReadFile(name)
				kept = kept || err == nil && bytes.Equal(text, theirs)
			}
			if !kept {
				t.Errorf("the vault that was there is not kept among %v, %v", names, err)
			}
			if err := b.ResumeVault(); err != nil {
				t.Fatal(err)
			}
			synced(t, b)
			if got, a := password(t, b); got != b.Passwords()[0] {
				t.Errorf("after the sync: %d %s", a.Status, a.Code())
			}
			if err := b.RestartDaemon(); err != nil {
				t.Fatal(err)
			}
			if p := problem(t, b, foreign); p != "" {
				t.Errorf("after a restart: %q", p)
			}
			if got, a := password(t, b); got != b.Passwords()[0] {
				t.Errorf("after a restart: %d %s", a.Status, a.Code())
			}
		})
	}
}

// An older copy of the local vault that is put back is noticed before Vault is
// there, and mended by Vault.
func TestOlderVaultPutBack(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	log := filepath.Join(b.State, "vault", "vault.log")
	var older []byte
	restartStopped(t, b, func() (err error) {
		older, err = os.ReadFile(log)
		return err
	})
	if err := b.WaitOnline(); err != nil {
		t.Fatal(err)
	}
	next := "pw-" + rand.Text()
	if err := b.PutBatchUser("payroll", next); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteBatchUser("reports"); err != nil {
		t.Fatal(err)
	}
	synced(t, b)
	synced(t, b) // whoever is to remember how far the vault had come has heard of it
	if p := problem(t, b, wentBack); p != "" {
		t.Errorf("nothing was put back, and there is a problem: %q", p)
	}
	if err := b.StopVault(); err != nil {
		t.Fatal(err)
	}
	restartStopped(t, b, func() error { return os.WriteFile(log, older, 0o600) }) // truncated and written: owner and mode stay
	if err := b.WaitHealthy(); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Sync(); err != nil || s.Outcome == "ok" {
		t.Fatalf("sync without Vault: %+v, %v", s, err)
	}
	s, err := b.Status()
	if err != nil || s.LocalVault.WentBack == "" || problem(t, b, wentBack) != s.LocalVault.WentBack {
		t.Errorf("an older vault is not noticed: %+v, problems %+v, %v", s.LocalVault, s.Problems, err)
	}
	audited(t, b, map[string]string{"code": wentBack})

	if err := b.ResumeVault(); err != nil {
		t.Fatal(err)
	}
	synced(t, b)
	if got, a := password(t, b); got != next {
		t.Errorf("mended: %d %s, want the new password", a.Status, a.Code())
	}
	if _, there := batchUsers(t, b)["reports"]; there {
		t.Error("mended: what was revoked is still there")
	}
	if p := problem(t, b, wentBack); p != "" {
		t.Errorf("mended: %q", p)
	}
	if err := b.RestartDaemon(); err != nil {
		t.Fatal(err)
	}
	synced(t, b)
	if p := problem(t, b, wentBack); p != "" {
		t.Errorf("mended, after a restart: %q", p)
	}
}
