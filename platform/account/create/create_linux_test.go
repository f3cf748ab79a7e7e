package create

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"batchwarden/platform/account"
	"batchwarden/platform/trial"
)

func TestMain(m *testing.M) { os.Exit(trial.Main(m)) }

const conf = `# a comment
u bwtry-daemon - "a daemon of ours" /nonexistent /usr/sbin/nologin
g bwtry-admin -
`

func TestParse(t *testing.T) {
	got, err := Parse(conf)
	want := []Entry{{"bwtry-daemon", true, "a daemon of ours", "/nonexistent", "/usr/sbin/nologin"}, {Name: "bwtry-admin"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"u x 1 \"c\" / /sh", "u x - c / /sh", "m x y", "g x - extra"} {
		if all, err := Parse(bad); err == nil {
			t.Errorf("%q was read as %v", bad, all)
		}
	}
}

// hide makes a program of the system one that cannot be executed, in this test's mount namespace.
func hide(t *testing.T, name string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if errors.Is(err, exec.ErrNotFound) {
		return
	}
	if err == nil {
		err = syscall.Mount("/dev/null", path, "", syscall.MS_BIND, "")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestMakeAndRemove(t *testing.T) {
	trial.NeedRoot(t)
	entries, err := Parse(conf)
	if err != nil {
		t.Fatal(err)
	}
	// Numbers that nothing else on this machine takes: an account with a process is not removed. systemd-sysusers does
	// not look into login.defs, and finds all above them taken.
	appendTo(t, "/etc/login.defs", "\nSYS_UID_MIN 640\nSYS_UID_MAX 660\nSYS_GID_MIN 640\nSYS_GID_MAX 660\n")
	var users, groups []byte
	for n := 661; n < persons; n++ {
		users = fmt.Appendf(users, "taken%d:x:%d:%d::/nonexistent:/usr/sbin/nologin\n", n, n, n)
		groups = fmt.Appendf(groups, "taken%d:x:%d:\n", n, n)
	}
	appendTo(t, "/etc/passwd", string(users))
	appendTo(t, "/etc/group", string(groups))
	for _, tool := range []string{"systemd-sysusers", "useradd"} {
		t.Run("with "+tool, func(t *testing.T) {
			if tool == "useradd" {
				hide(t, "systemd-sysusers")
			}
			ctx := context.Background()
			for range 2 { // the second time nothing is missing
				if err := Make(ctx, entries); err != nil {
					t.Fatal(err)
				}
			}
			user, err := account.System().Fresh("bwtry-daemon")
			if err != nil || user.UID < 640 || user.UID > 660 || user.Shell != "/usr/sbin/nologin" || user.Home != "/nonexistent" || !user.OwnGroup {
				t.Errorf("made %+v, %v", user, err)
			}
			if _, err := account.GroupByName("bwtry-admin"); err != nil {
				t.Error(err)
			}
			if missing, err := Missing(entries); err != nil || len(missing) > 0 {
				t.Errorf("missing %v, %v", missing, err)
			}
			if taken, err := Conflicts(entries); err != nil || len(taken) > 0 {
				t.Errorf("our own are in the way: %v, %v", taken, err)
			}
			for range 2 {
				if err := Remove(ctx, entries); err != nil {
					t.Fatal(err)
				}
			}
			if missing, err := Missing(entries); err != nil || len(missing) != len(entries) {
				t.Errorf("still there but for %v, %v", missing, err)
			}
		})
	}
}

func TestConflicts(t *testing.T) {
	trial.NeedRoot(t)
	entries, err := Parse(conf)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		group, passwd string
		says          []string
	}{
		"nothing":                    {"", "", nil},
		"an empty group of a system": {"bwtry-daemon:x:990:\n", "", nil},
		"a person's group":           {"bwtry-daemon:x:1990:\n", "", []string{"gid 1990"}},
		"a group with people":        {"bwtry-daemon:x:990:alice,bob\n", "", []string{"alice, bob"}},
		"root by another name":       {"bwtry-daemon:x:0:\n", "bwtry-daemon:x:0:0::/:/bin/false\n", []string{"uid 0"}},
		"a person":                   {"bwtry-daemon:x:1990:\n", "bwtry-daemon:x:1990:1990::/:/bin/bash\n", []string{"uid 1990", "can log in"}},
		"another's group":            {"bwtry-daemon:x:990:\n", "bwtry-daemon:x:990:100::/:/sbin/nologin\n", []string{"none of its own"}},
		"people who may administer":  {"bwtry-admin:x:1990:alice\n", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			appendTo(t, "/etc/group", c.group)
			appendTo(t, "/etc/passwd", c.passwd)
			got, err := Conflicts(entries)
			if err != nil || len(got) != len(c.says) && c.says == nil {
				t.Errorf("got %q, %v, want %q", got, err, c.says)
			}
			for _, want := range c.says {
				if !strings.Contains(strings.Join(got, "; "), want) {
					t.Errorf("%q does not say %q", got, want)
				}
			}
		})
	}
}

// appendTo adds text to a file for the time of a test.
func appendTo(t *testing.T, path, text string) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(slices.Clone(old), text...), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, old, 0o644); err != nil {
			t.Error(err)
		}
	})
}
