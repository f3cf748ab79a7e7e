package mint

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"batchwarden/platform/hostkey"
	"batchwarden/platform/lockmem"
)

func arena(t *testing.T) *lockmem.Arena {
	t.Helper()
	a, err := lockmem.New(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err) // also: a key that was not given back
		}
	})
	return a
}

// self is an owner that needs no root.
func self() hostkey.Owner {
	return hostkey.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
}

func TestKeyFile(t *testing.T) {
	a, path := arena(t), t.TempDir()+"/key"
	m, err := Key("keyfile:"+path, self(), Options{}, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(m.KEK)
	k, err := hostkey.Open("keyfile:"+path, false, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(k.KEK)
	if k.ID != m.ID || m.Path != path || m.Kind != hostkey.KeyFile {
		t.Errorf("made %+v, opened %+v", m, k)
	}
	pipe, err := m.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if text, err := io.ReadAll(pipe); err != nil || !bytes.Equal(text, k.KEK.Bytes()) {
		t.Errorf("the pipe holds something else: %v", err)
	}
	if _, err := Key("keyfile:"+path, self(), Options{}, a); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a key that is there: %v", err)
	}
	if err := m.Undo(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("undone: %v", err)
	}
	if err := m.Undo(); err == nil {
		t.Error("undone twice")
	}
}

// TestForAnother: the key belongs to the account that will open it, in a directory that is its own or root's.
func TestForAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		const why = "needs root; run: sudo make test"
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	a, dir := arena(t), t.TempDir()
	another := hostkey.Owner{UID: 54321, GID: 54322}
	for _, uid := range []int{0, int(another.UID)} {
		if err := os.Chown(dir, uid, -1); err != nil {
			t.Fatal(err)
		}
		m, err := Key("keyfile:"+dir+"/key", another, Options{}, a)
		if err != nil {
			t.Fatal(err)
		}
		a.Drop(m.KEK)
		info, err := os.Stat(m.Path)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Uid != another.UID || st.Gid != another.GID || info.Mode() != 0o400 {
			t.Errorf("%d:%d %v", st.Uid, st.Gid, info.Mode())
		}
		if err := m.Undo(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, 54323, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Key("keyfile:"+dir+"/key", another, Options{}, a); err == nil {
		t.Error("in a directory of somebody else")
	}
	link := t.TempDir() + "/link"
	if err := errors.Join(os.Chown(dir, int(another.UID), -1), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	if _, err := Key("keyfile:"+link+"/key", another, Options{}, a); err == nil {
		t.Error("in a directory that a link leads to")
	}
}

// TestCredential makes one with the host's secret, a secret of this test's own, and opens it with systemd's tool as
// systemd does for a unit.
func TestCredential(t *testing.T) {
	if os.Geteuid() != 0 || !has("systemd-creds") {
		const why = "needs root and systemd-creds; run: sudo make test"
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	a, dir := arena(t), t.TempDir()
	t.Setenv("SYSTEMD_CREDENTIAL_SECRET", dir+"/secret")
	o := Options{CredentialFile: dir + "/credstore/kek", CredentialKey: "host"}
	m, err := Key(hostkey.Credential, self(), o, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(m.KEK)
	info, err := os.Stat(m.Path)
	if err != nil || info.Mode() != 0o600 || m.Path != o.CredentialFile {
		t.Errorf("%v, %v, %s", info, err, m.Path)
	}
	box, err := os.ReadFile(m.Path)
	if err != nil || bytes.Contains(box, m.KEK.Bytes()[:8]) {
		t.Errorf("the file holds the key as it is, or: %v", err)
	}
	if _, err := Key(hostkey.Credential, self(), o, a); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over one that is there: %v", err)
	}
	if err := os.Mkdir(dir+"/creds", 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-creds", "decrypt", "--name=kek", m.Path, dir+"/creds/kek").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(dir+"/creds/kek", 0o400); err != nil {
		t.Fatal(err)
	}
	k, err := hostkey.Places{Credentials: dir + "/creds"}.Open(hostkey.Credential, false, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(k.KEK)
	if k.ID != m.ID {
		t.Error("it is another key")
	}
	if out, err := exec.Command("systemd-creds", "decrypt", "--name=other", m.Path, dir+"/other").CombinedOutput(); err == nil {
		t.Errorf("it opens under another name: %s", out)
	}
}

// TestCredentialFails: what systemd-creds says is told, and nothing is left.
func TestCredentialFails(t *testing.T) {
	a, dir := arena(t), t.TempDir()
	t.Setenv("PATH", dir)
	o := Options{CredentialFile: dir + "/kek"}
	if _, err := Key(hostkey.Credential, self(), o, a); err == nil {
		t.Error("made without systemd-creds")
	}
	script := "#!/bin/sh\necho no secret today >&2\nexit 3\n"
	if err := os.WriteFile(dir+"/systemd-creds", []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Key(hostkey.Credential, self(), o, a); err == nil || !bytes.Contains([]byte(err.Error()), []byte("no secret today")) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(o.CredentialFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
}

func has(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}
