//go:build linux

package safefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// mine is what a test's own files are held to.
var mine = Rules{Self: true}

func write(t *testing.T, path, data string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string, mode fs.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpen(t *testing.T) {
	base := t.TempDir()
	good := mkdir(t, filepath.Join(base, "good"), 0o755)
	open := mkdir(t, filepath.Join(base, "open"), 0o777)
	write(t, good+"/plain", "text", 0o644)
	write(t, good+"/private", "text", 0o400)
	write(t, good+"/group", "text", 0o664)
	write(t, good+"/world", "text", 0o606)
	write(t, open+"/plain", "text", 0o644)
	for link, to := range map[string]string{
		good + "/link": "plain", good + "/out": open + "/plain", open + "/in": good + "/plain", good + "/dangling": "nothing",
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(good+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	private := mine
	private.Mode = 0o600
	anyDir := mine
	anyDir.AnyDir = true
	cases := []struct {
		name, path string
		rules      Rules
		want       string // part of the error; empty: it opens
	}{
		{"plain file", good + "/plain", mine, ""},
		{"readable by others where that is forbidden", good + "/plain", private, "mode 0644: must be 0600 or less"},
		{"private file where that is asked", good + "/private", private, ""},
		{"group writable", good + "/group", mine, "mode 0664: others than the owner can write it"},
		{"world writable", good + "/world", mine, "mode 0606: others"},
		{"in a directory that others can write", open + "/plain", mine, `open": mode 0777: others`},
		{"the same with the directory left unchecked", open + "/plain", anyDir, ""},
		{"link of the owner", good + "/link", mine, ""},
		{"link into a directory that others can write", good + "/out", mine, `open": mode 0777`},
		{"link in a directory that others can write", open + "/in", mine, `open": mode 0777`},
		{"link to nothing", good + "/dangling", mine, "no such file"},
		{"pipe does not hold us up", good + "/pipe", mine, "not a regular file"},
		{"directory", good, mine, "not a regular file"},
		{"missing", good + "/missing", mine, "no such file"},
		{"missing directory", base + "/no/file", mine, "no such file"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f, err := Open(c.path, c.rules)
			if err == nil {
				defer f.Close()
			}
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("got %v, want %q", err, c.want)
			case err != nil && !strings.HasPrefix(err.Error(), `safefile: "`+c.path+`": `):
				t.Fatalf("the error does not name the path: %v", err)
			case strings.Contains(c.want, "no such file") && !errors.Is(err, fs.ErrNotExist):
				t.Fatalf("%v is not fs.ErrNotExist", err)
			}
		})
	}
}

func TestOpenOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal("needs root; run: sudo make test")
		}
		t.Skip("needs root; run: sudo make test")
	}
	dir := mkdir(t, filepath.Join(t.TempDir(), "d"), 0o755)
	path := dir + "/x"
	write(t, path, "text", 0o644)
	if err := os.Chown(path, 1000, 0); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, Rules{})
	if want := `safefile: "` + path + `": owned by uid 1000, must be root's`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = Open(path, Rules{Owners: []uint32{7, 8}})
	if want := "must be root's or uid 7's or uid 8's"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if f, err := Open(path, Rules{Owners: []uint32{1000}}); err != nil {
		t.Error(err)
	} else if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := os.Chown(dir, 1000, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 0, 0); err != nil {
		t.Fatal(err)
	}
	if _, err = Open(path, Rules{}); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("another's directory: got %v", err)
	}
	if err := CheckDir(dir, Rules{}); err == nil {
		t.Error("CheckDir allows another's directory")
	}
}

func TestReadLimit(t *testing.T) {
	path := mkdir(t, t.TempDir(), 0o755) + "/x"
	write(t, path, "12345", 0o600)
	if got, err := Read(path, 5, mine); err != nil || string(got) != "12345" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Read(path, 4, mine); err == nil || !strings.Contains(err.Error(), "longer than 4 octets") {
		t.Errorf("got %v", err)
	}
}

func TestWriteAtomic(t *testing.T) {
	dir := mkdir(t, t.TempDir(), 0o755)
	path := dir + "/x"
	for _, c := range []struct {
		data string
		mode fs.FileMode
	}{{"one", 0o600}, {"two", 0o644}, {"", 0o400}, {"four", 0o444}} {
		if err := WriteAtomic(path, []byte(c.data), c.mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != c.data {
			t.Errorf("got %q, %v, want %q", got, err, c.data)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != c.mode {
			t.Errorf("mode %v, %v, want %v", info.Mode(), err, c.mode)
		}
	}
	if err := WriteAtomic(dir+"/no/x", nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	mkdir(t, dir+"/taken/inside", 0o755)
	if err := WriteAtomic(dir+"/taken", nil, 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	onlyNames(t, dir, "taken", "x")
}

func TestCreateNew(t *testing.T) {
	dir := mkdir(t, t.TempDir(), 0o755)
	put := func(text string) func(*os.File) error {
		return func(f *os.File) error { _, err := f.WriteString(text); return err }
	}
	if err := CreateNew(dir+"/x", 0o400, put("first")); err != nil {
		t.Fatal(err)
	}
	if err := CreateNew(dir+"/x", 0o400, put("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	broken := errors.New("broken")
	if err := CreateNew(dir+"/y", 0o400, func(*os.File) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(dir + "/x"); err != nil || string(got) != "first" {
		t.Errorf("got %q, %v", got, err)
	}
	onlyNames(t, dir, "x")
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	first, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: got %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func onlyNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("in the directory: %q, want %q", got, want)
	}
}
