package account

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const passwd = `# a comment
root:x:0:0:root:/root:/bin/bash
+nis::::::
short:x:1
alice:x:1000:1000:Alice,,,:/home/alice:/bin/zsh
alice:x:0:0::/:/bin/second
same:x:1000:1001::/home/same:
bad:x:minus:1::/:
nobody-at-all:x:4294967295:1::/:/bin/sh
high:x:4294967294:3000000000::/:/bin/sh
last:x:1005:1005::/home/last:/bin/sh`

const group = `root:x:0:
alice:x:1000:
finance:x:2000:bob,alice
finance2:x:2000:alice
audit:x:2001:alice,root
alicegroup:x:2002:alice2,xalice
last:x:1005:mallory
broken:x
noid:x::alice
`

func write(t *testing.T, passwd, group string) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")}
	if err := errors.Join(os.WriteFile(f.Passwd, []byte(passwd), 0o600), os.WriteFile(f.Group, []byte(group), 0o600)); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLookup(t *testing.T) {
	f := write(t, passwd, group)
	got, err := f.Lookup("alice")
	want := Account{Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice", Shell: "/bin/zsh", OwnGroup: true}
	groups := []Group{{1000, "alice"}, {2000, "finance"}, {2001, "audit"}}
	if err != nil || !got.Equal(withGroups(want, groups)) || !slices.Equal(got.Groups, groups) || !got.OwnGroup {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err = f.Lookup("high"); err != nil || got.UID != 4294967294 || got.GID != 3000000000 || !slices.Equal(got.Groups, []Group{{GID: 3000000000}}) || got.OwnGroup {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err = f.Lookup("last"); err != nil || got.OwnGroup {
		t.Errorf("a group that lists another is not its own: %+v, %v", got, err)
	}
	if got, err = f.ByUID(1000); err != nil || got.Name != "alice" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, name := range []string{"", "ghost", "short", "bad", "nobody-at-all", "+nis", "# a comment", "1000", "alice:x"} {
		if a, err := f.Lookup(name); !errors.Is(err, ErrMissing) {
			t.Errorf("%q: got %+v, %v", name, a, err)
		}
	}
	if g, err := f.GroupByName("finance"); err != nil || g.GID != 2000 {
		t.Errorf("got %+v, %v", g, err)
	}
	for _, name := range []string{"", "ghost", "broken", "noid"} {
		if g, err := f.GroupByName(name); !errors.Is(err, ErrMissing) {
			t.Errorf("group %q: got %+v, %v", name, g, err)
		}
	}
}

func withGroups(a Account, g []Group) Account { a.Groups = g; return a }

// TestNoAnswer: a file that cannot be read is not an account that does not exist.
func TestNoAnswer(t *testing.T) {
	f := write(t, passwd, group)
	f.Group += "-missing"
	if _, err := f.Lookup("alice"); err == nil || errors.Is(err, ErrMissing) {
		t.Errorf("got %v", err)
	}
	f = write(t, passwd, "x:x:1:"+strings.Repeat("y,", maxLine)+"\n")
	if _, err := f.Lookup("alice"); err == nil || errors.Is(err, ErrMissing) {
		t.Errorf("a line without end: %v", err)
	}
	f = write(t, passwd, "big:x:3000:"+strings.Repeat("someone,", 50000)+"alice\n")
	if a, err := f.Lookup("alice"); err != nil || len(a.Groups) != 2 {
		t.Errorf("a long line: %+v, %v", a, err)
	}
}
