package nss

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"batchwarden/platform/account"
	"batchwarden/platform/trial"
)

// What is in /mnt is gone with the namespace that the tests run in.
const (
	helper   = "/mnt/bin/batchwarden-nss"
	libs     = "/mnt/lib"
	extra    = "/var/lib/extrausers"
	extraLib = "/usr/lib/libnss_extrausers.so.2"
)

func TestMain(m *testing.M) { os.Exit(trial.Main(m, "/var/cache/ldconfig", "/var/lib")) }

const localPasswd = `root:x:0:0:root:/root:/bin/bash
daemon:x:1:1::/:/usr/sbin/nologin
local:x:4000:4000::/home/local:/bin/sh
many:x:4001:4001::/home/many:
lone:x:4002:9999::/home/lone:/bin/bash
both:x:4003:4003:here:/home/both:/bin/sh
twin:x:4000:4000::/home/twin:/bin/sh
`

func localGroup() string {
	var b strings.Builder
	b.WriteString("root:x:0:\ndaemon:x:1:\nlocal:x:4000:local\nmany:x:4001:\nboth:x:4003:other\nfin:x:4100:local,many,both\nfin2:x:4100:local\n")
	for i := range 40 {
		fmt.Fprintf(&b, "g%d:x:%d:other,many\n", i, 5000+i)
	}
	return b.String()
}

const (
	farPasswd = "far:x:7000:7000::/home/far:/bin/sh\nboth:x:7003:7003:there:/far/both:/bin/zsh\nnogroups:x:7004:7004::/:\n"
	farGroup  = "far:x:7000:\nfargroup:x:7100:far,local,both\nfargroup2:x:7101:far,ghost\nlocal:x:4000:mallory\n"
)

// furnished makes the program, three sources (trial; plain, which can only list its groups; and Debian's extrausers
// where it is installed), and the local files. It returns the names of the sources.
func furnished(t testing.TB) []string {
	t.Helper()
	trial.NeedRoot(t)
	if _, err := os.Stat(helper); err != nil {
		if err := errors.Join(os.MkdirAll(filepath.Dir(helper), 0o755), os.MkdirAll(libs, 0o755)); err != nil {
			t.Fatal(err)
		}
		trial.Compile(t, "helper/compile", helper)
		trial.Compile(t, "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-DSOURCE=trial", "-DDYN", "-o", libs+"/libnss_trial.so.2", "testdata/source.c")
		trial.Compile(t, "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-DSOURCE=plain", "-o", libs+"/libnss_plain.so.2", "testdata/source.c")
		if out, err := exec.Command("/sbin/ldconfig", "-X", libs).CombinedOutput(); err != nil {
			t.Fatalf("ldconfig: %v: %s", err, out)
		}
	}
	put(t, "/etc/passwd", localPasswd)
	put(t, "/etc/group", localGroup())
	for _, name := range []string{"trial", "plain"} {
		put(t, "/etc/"+name+".passwd", farPasswd)
		put(t, "/etc/"+name+".group", farGroup)
		put(t, "/etc/"+name+".mode", "")
	}
	if _, err := os.Stat(extraLib); err != nil {
		return []string{"trial", "plain"}
	}
	put(t, extra+"/passwd", farPasswd)
	put(t, extra+"/group", farGroup)
	return []string{"trial", "plain", "extrausers"}
}

// put writes a file as the tools do: beside it, and then in its place.
func put(t testing.TB, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func configure(t testing.TB, lines ...string) {
	t.Helper()
	put(t, "/etc/nsswitch.conf", strings.Join(lines, "\n")+"\n")
}

func open(t testing.TB, program string) *Resolver {
	t.Helper()
	r := New(program)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// id is what id -G says, sorted.
func id(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("id", "-G", name).Output()
	if err != nil {
		t.Fatalf("id -G %s: %v", name, err)
	}
	words := strings.Fields(string(out))
	slices.Sort(words)
	return strings.Join(slices.Compact(words), " ")
}

func sorted(ids []uint32) string {
	var words []string
	for _, g := range ids {
		words = append(words, strconv.FormatUint(uint64(g), 10))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// TestSameAsSystem holds every answer against id and getent, with and without the program.
func TestSameAsSystem(t *testing.T) {
	for i, far := range furnished(t) {
		for _, c := range []struct {
			lines string
			files bool // what is in the files is known without the program
			rest  bool // and what is not there, too
		}{
			{"", true, true},
			{"passwd: files\ngroup: files", true, true},
			{"passwd: compat\ngroup: compat", true, true},
			{"passwd: files systemd\ngroup: files systemd # as Debian has it", true, true},
			{"passwd: files FAR\ngroup: files", true, false},
			{"passwd: files FAR\ngroup: files FAR", false, false},
			{"passwd: files FAR\ngroup: files FAR\ninitgroups: files", true, false},
			{"passwd: files FAR\ngroup: files FAR\ninitgroups: files FAR", false, false},
			{"passwd: files FAR\ngroup: files FAR\ninitgroups: files [SUCCESS=continue] FAR", false, false},
			{"passwd: FAR files\ngroup: FAR files", false, false},
			{"passwd: FAR [NOTFOUND=return] files\ngroup: FAR [!SUCCESS=return] files", false, false},
			{"passwd: files FAR systemd\ngroup: files [SUCCESS=merge] FAR [SUCCESS=merge] systemd", false, false},
			{"passwd: files notinstalled\ngroup: notinstalled files", false, false},
			{"passwd: FAR\ngroup: FAR", false, false},
		} {
			if i > 0 && !strings.Contains(c.lines, "FAR") {
				continue
			}
			t.Run(far+"/"+strings.ReplaceAll(c.lines, "\n", ";"), func(t *testing.T) {
				configure(t, strings.ReplaceAll(c.lines, "FAR", far))
				r, without := open(t, helper), open(t, "/nonexistent")
				names := []string{"root", "local", "many", "lone", "both", "twin", "far", "nogroups", "ghost", "Local"}
				accounts, uids := getent(t, "passwd", names...), []string{}
				for _, name := range names {
					got, err := r.Fresh(name)
					want := accounts[name]
					switch {
					case want == nil && !errors.Is(err, account.ErrMissing):
						t.Errorf("%q: got %+v, %v; there is none", name, got, err)
					case want != nil && (err != nil || !same(got, want) || got.Groups[0].GID != got.GID):
						t.Errorf("%q: got %+v, %v; getent %q", name, got, err, want)
					case want != nil:
						uids = append(uids, want[2])
						// extrausers says that uid 0 is its first account, which confuses id.
						if groups := id(t, name); sorted(got.GIDs()) != groups && name != "root" {
							t.Errorf("%q: got %+v, id says %s", name, got, groups)
						}
					}
					if soon, err2 := r.Lookup(name); (err2 == nil) != (err == nil) || !soon.Equal(got) {
						t.Errorf("%q: got %+v, %v and then %+v, %v", name, got, err, soon, err2)
					}
					local := strings.Contains("\n"+localPasswd, "\n"+name+":")
					known := local && c.files || !local && c.rest
					if got, err := without.Lookup(name); known == errors.Is(err, account.ErrSilent) {
						t.Errorf("%q without the program: got %+v, %v", name, got, err)
					}
				}
				for uid, want := range getent(t, "passwd", uids...) {
					if got, err := r.ByUID(toInt(t, uid)); err != nil || !same(got, want) {
						t.Errorf("uid %s: got %+v, %v; getent %q", uid, got, err, want)
					}
				}
				names = []string{"fin", "fin2", "g7", "fargroup", "both", "local", "docker", "nobody"}
				groups := getent(t, "group", names...)
				for _, name := range names {
					g, err := r.GroupByName(name)
					switch want := groups[name]; {
					case want == nil && !errors.Is(err, account.ErrMissing), want != nil && (err != nil || want[0] != g.Name || want[2] != sorted([]uint32{g.GID})):
						t.Errorf("group %q: got %+v, %v, getent %q", name, g, err, want)
					}
				}
			})
		}
	}
}

// getent is what the system's own program finds, by what it was asked for.
func getent(t *testing.T, base string, keys ...string) map[string][]string {
	t.Helper()
	out, err := exec.Command("getent", append([]string{base}, keys...)...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 2) {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		for _, key := range keys {
			if f[0] == key || f[2] == key {
				found[key] = f
			}
		}
	}
	return found
}

func same(a account.Account, f []string) bool {
	return fmt.Sprint([]any{a.Name, a.UID, a.GID, a.Home, a.Shell}) == fmt.Sprint([]any{f[0], f[2], f[3], f[5], f[6]})
}

func toInt(t *testing.T, s string) uint32 {
	t.Helper()
	n, ok := number(s)
	if !ok {
		t.Fatalf("%q is no number", s)
	}
	return n
}

// eventually waits for what happens in another process.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal(what)
		}
	}
}
