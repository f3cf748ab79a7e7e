package hostkey

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
)

// pipeWith returns the reading end of a pipe that holds these octets and whose writing end is closed.
func pipeWith(t *testing.T, text []byte) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // a test may have closed it
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReceive(t *testing.T) {
	a := arena(t)
	key := bytes.Repeat([]byte("0123"), 8)
	k, err := Receive(pipeWith(t, key), TPM2, a)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.KEK.Bytes(), key) || k.Kind != TPM2 || len(k.ID) != 16 || k.Host != Host() {
		t.Errorf("got %+v", k)
	}
	a.Drop(k.KEK)

	held, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer held.Close()
	if _, err := w.Write(key); err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(key, 0); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, kind string
		pipe       *os.File
		want       string
	}{
		{"too short", KeyFile, pipeWith(t, key[:31]), "31 octets of 32"},
		{"too long", KeyFile, pipeWith(t, append(bytes.Clone(key), 'x')), "does not end"},
		{"empty", KeyFile, pipeWith(t, nil), "0 octets of 32"},
		{"zeros", KeyFile, pipeWith(t, make([]byte, Size)), "zeros"},
		{"the other end is still there", KeyFile, held, "does not end"},
		{"a file", KeyFile, file, "by a pipe"},
		{"no such kind", "secret", pipeWith(t, key), "no kind of key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := Receive(c.pipe, c.kind, a)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, want %q", k, err, c.want)
			}
		})
	}
}

func TestHost(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	want := hostOf([]string{id + "\n"})
	if len(want) != 16 || strings.Contains(id, want) {
		t.Fatalf("got %q", want)
	}
	// Vaults name their host by it: it never changes.
	if want != "0a5c240803918213" {
		t.Errorf("got %q", want)
	}
	for _, c := range []struct {
		name string
		ids  []string
		want string
	}{
		{"written as Windows does", []string{"01234567-89AB-CDEF-0123-456789ABCDEF"}, want},
		{"the first file is not filled in", []string{"uninitialized\n", id}, want},
		{"zeros", []string{strings.Repeat("0", 32), id}, want},
		{"another machine", []string{strings.Replace(id, "0", "1", 1)}, hostOf([]string{"1" + id[1:]})},
		{"none", nil, ""},
		{"no id in it", []string{"", "localhost", id[:30]}, ""},
	} {
		if got := hostOf(c.ids); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if hostOf([]string{"1" + id[1:]}) == want {
		t.Error("two machines have one name")
	}
	if first, again := Host(), Host(); first != again {
		t.Errorf("the name changes: %q, %q", first, again)
	}
}

func TestCredential(t *testing.T) {
	a, dir := arena(t), t.TempDir()
	places := Places{Credentials: dir}
	missing := func(p Places) {
		t.Helper()
		_, err := p.Open(Credential, true, a)
		if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "LoadCredentialEncrypted=kek") {
			t.Errorf("got %v", err)
		}
	}
	missing(places)
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	missing(Places{})
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	key := bytes.Repeat([]byte("0123"), 8)
	if err := os.WriteFile(dir+"/kek", key, 0o400); err != nil {
		t.Fatal(err)
	}
	// systemd makes the directory so; the group's bits are those of a mask.
	for _, modes := range [][2]os.FileMode{{0o500, 0o400}, {0o550, 0o440}} {
		if err := errors.Join(os.Chmod(dir, modes[0]), os.Chmod(dir+"/kek", modes[1])); err != nil {
			t.Fatal(err)
		}
		for _, p := range []Places{{}, places} {
			k, err := p.Open(Credential, false, a)
			if err != nil {
				t.Fatal(err)
			}
			if k.Kind != Credential || !bytes.Equal(k.KEK.Bytes(), key) {
				t.Errorf("got %+v", k)
			}
			a.Drop(k.KEK)
		}
	}
	for _, mode := range []os.FileMode{0o444, 0o460, 0o600} {
		if err := os.Chmod(dir+"/kek", mode); err != nil {
			t.Fatal(err)
		}
		if _, err := places.Open(Credential, false, a); err == nil || !strings.Contains(err.Error(), "mode") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := places.Create(Credential, nil, a); err == nil {
		t.Error("a credential was made")
	}
}
