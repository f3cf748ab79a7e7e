package limits

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchwarden/daemon/config"
	"batchwarden/platform/account"
)

const passwd = `root:x:0:0::/root:/bin/sh
daemon:x:900:900::/:/bin/sh
agent:x:1500:1500::/:/bin/sh
alice:x:1000:1000::/:/bin/sh
alias:x:1000:1000::/:/bin/sh
bob:x:1001:1001::/:/bin/sh
low:x:999:1000::/:/bin/sh
lowgroup:x:1002:99::/:/bin/sh
audio:x:1003:1003::/:/bin/sh
admin:x:1004:1004::/:/bin/sh
wheelie:x:1005:1005::/:/bin/sh
twin:x:1006:1006::/:/bin/sh
rooty:x:1007:1007::/:/bin/sh
`

const groups = `root:x:0:rooty
alice:x:1000:
bob:x:1001:
audio:x:29:audio
sudo:x:2000:admin
wheel:x:2001:wheelie
docker:x:2002:
dockeralias:x:2002:twin
finance:x:3000:alice
`

func files(t *testing.T) account.Files {
	t.Helper()
	dir := t.TempDir()
	f := account.Files{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group")}
	if err := errors.Join(os.WriteFile(f.Passwd, []byte(passwd), 0o600), os.WriteFile(f.Group, []byte(groups), 0o600)); err != nil {
		t.Fatal(err)
	}
	return f
}

// silent is a resolver that has no answer for one name.
type silent struct {
	account.Resolver
	name string
}

var errSilentTest = errors.New("timed out")

func (s silent) Lookup(name string) (account.Account, error) {
	if name == s.name {
		return account.Account{}, errSilentTest
	}
	return s.Resolver.Lookup(name)
}

func (s silent) GroupByName(name string) (account.Group, error) {
	if name == s.name {
		return account.Group{}, errSilentTest
	}
	return s.Resolver.GroupByName(name)
}

// program is a Command.
type program struct{ path, sum string }

func (p program) Path() (string, error) {
	if p.path == "" {
		return "", errors.New("not found")
	}
	return p.path, nil
}

func (p program) SHA256() (string, error) { return p.sum, nil }

const asRoot = -1

func TestAllow(t *testing.T) {
	for _, c := range []struct {
		sentence string
		yaml     string
		user     string
		asks     int      // 0: the requester; asRoot: root
		env      []string // set by the request
		silent   string
		want     string // in the reason; "": allowed
	}{
		{sentence: "an ordinary account is allowed", user: "alice"},
		{sentence: "requesters, by default none", yaml: "requesters: []", user: "alice", want: "requesters"},
		{sentence: "only requesters may ask", user: "alice", asks: 1001, want: "uid 1001 is not one"},
		{sentence: "root is no requester by being root", user: "alice", asks: asRoot, want: "requesters"},
		{sentence: "a requester whose account is missing admits nobody", yaml: "requesters: [ghost]", user: "alice", want: "requesters"},
		{sentence: "one that cannot be looked up admits nobody", silent: "agent", user: "alice", want: "cannot be looked up"},

		{sentence: "root is refused", user: "root", want: "root"},
		{sentence: "root is refused whatever min_uid says", yaml: "min_uid: 0\nmin_gid: 0\ndeny_groups: []", user: "root", want: "allow_root"},
		{sentence: "allow_root alone does not allow root", yaml: "allow_root: true", user: "root", want: "allow_root"},
		{sentence: "root in allow_users alone does not", yaml: "allow_users: [root]", user: "root", want: "allow_root"},
		{sentence: "both do", yaml: "allow_root: true\nallow_users: [root]", user: "root"},
		{sentence: "deny wins over both", yaml: "allow_root: true\nallow_users: [root]\ndeny_users: [root]", user: "root", want: "deny_users"},
		{sentence: "both do not help another one in group root", yaml: "allow_root: true\nallow_users: [root, rooty]", user: "rooty", want: "min_gid"},

		{sentence: "min_uid", user: "low", want: "min_uid"},
		{sentence: "min_uid can be lowered", yaml: "min_uid: 999", user: "low"},
		{sentence: "min_gid holds for the primary group", user: "lowgroup", want: "min_gid"},
		{sentence: "min_gid holds for every supplementary one", user: "audio", want: "group 29"},
		{sentence: "min_gid can be lowered", yaml: "min_gid: 29", user: "audio"},

		{sentence: "a default deny group", user: "admin", want: `"sudo"`},
		{sentence: "another default deny group", user: "wheelie", want: `"wheel"`},
		{sentence: "a denied group under another name with its number", user: "twin", want: "group 2002"},
		{sentence: "an own list replaces the default", yaml: "deny_groups: [finance]", user: "admin"},
		{sentence: "an own list denies", yaml: "deny_groups: [finance]", user: "alice", want: `"finance"`},
		{sentence: "a group that is missing stops nothing else", yaml: "deny_groups: [ghosts]", user: "alice"},
		{sentence: "a group that cannot be looked up stops everything", yaml: "deny_groups: [slow]", silent: "slow", user: "alice", want: "cannot be looked up"},

		{sentence: "an empty allow list does not restrict", yaml: "allow_users: []", user: "bob"},
		{sentence: "an allow list restricts", yaml: "allow_users: [alice]", user: "bob", want: "allow_users"},
		{sentence: "an allow list allows", yaml: "allow_users: [alice]", user: "alice"},
		{sentence: "an allow list of missing accounts stays a list", yaml: "allow_users: [ghost]", user: "alice", want: "allow_users"},
		{sentence: "an allowed name is not its number", yaml: "allow_users: [alice]", user: "alias", want: "allow_users"},
		{sentence: "deny_users", yaml: "deny_users: [alice]", user: "alice", want: "deny_users"},
		{sentence: "deny wins over allow", yaml: "allow_users: [alice]\ndeny_users: [alice]", user: "alice", want: "deny_users"},
		{sentence: "a denied number under another name", yaml: "deny_users: [alice]", user: "alias", want: "same uid 1000"},
		{sentence: "a denied account that is missing stops nothing else", yaml: "deny_users: [ghost]", user: "alice"},
		{sentence: "a denied account that cannot be looked up stops everything", yaml: "deny_users: [slow]", silent: "slow", user: "alice", want: "cannot be looked up"},

		{sentence: "requesters are never targets", yaml: "allow_users: [agent]", user: "agent", want: "requester"},
		{sentence: "our own accounts are never targets", yaml: "min_uid: 1\nallow_users: [daemon]", user: "daemon", want: "batchwarden itself"},

		{sentence: "an ordinary name in the environment", user: "alice", env: []string{"TASK_ID", "LANG"}},
		{sentence: "LD_ names need allow_env", user: "alice", env: []string{"LD_PRELOAD"}, want: "LD_PRELOAD"},
		{sentence: "PATH needs it", user: "alice", env: []string{"PATH"}, want: "PATH"},
		{sentence: "PYTHON names need it", user: "alice", env: []string{"PYTHONSTARTUP"}, want: "PYTHON"},
		{sentence: "an exported function needs it", user: "alice", env: []string{"BASH_FUNC_ls%%"}, want: "BASH_FUNC"},
		{sentence: "allow_env", yaml: "allow_env: [PATH]", user: "alice", env: []string{"PATH"}},
		{sentence: "allow_env is exact", yaml: "allow_env: [PATH]", user: "alice", env: []string{"PATHS", "HOME"}, want: "HOME"},
		{sentence: "with allow_commands every name needs it", yaml: "allow_commands: [{path: /}]", user: "alice", env: []string{"LANG"}, want: "LANG"},
		{sentence: "and may have it", yaml: "allow_commands: [{path: /}]\nallow_env: [LANG]", user: "alice", env: []string{"LANG"}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			err := ask(t, c.yaml, c.silent, c.user, c.asks, program{path: "/bin/true"}, c.env)
			expect(t, err, c.want)
		})
	}
}

// ask holds a launch against limits that have agent as requester unless they say otherwise.
func ask(t *testing.T, yaml, mute, user string, asks int, p program, env []string) error {
	t.Helper()
	if !strings.Contains(yaml, "requesters") {
		yaml = "requesters: [agent]\n" + yaml
	}
	limits, err := config.ParseLimits("limits.yaml", []byte("version: 1\n"+yaml+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := files(t)
	a, err := r.Lookup(user)
	if err != nil {
		t.Fatal(err)
	}
	switch asks {
	case 0:
		asks = 1500
	case asRoot:
		asks = 0
	}
	f := New("", []uint32{900}, silent{r, mute})
	return f.judge(limits, Launch{Requester: uint32(asks), Account: a, GID: a.GID, Env: env, Command: p})
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

func TestAllowCommands(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	content := []byte("#!/bin/sh\n")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "pay/sub"), 0o755), os.Mkdir(filepath.Join(dir, "payroll"), 0o755),
		os.WriteFile(filepath.Join(dir, "one"), content, 0o755), os.Symlink("pay", filepath.Join(dir, "link")),
	); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	hexSum := hex.EncodeToString(sum[:])
	for _, c := range []struct{ sentence, entries, path, sum, want string }{
		{"a file below a directory", "{path: DIR/pay/}", "DIR/pay/x", "", ""},
		{"and deeper", "{path: DIR/pay/}", "DIR/pay/sub/x", "", ""},
		{"components, not characters", "{path: DIR/pay/}", "DIR/payroll/x", "", "not among them"},
		{"the directory itself is no file", "{path: DIR/pay/}", "DIR/pay", "", "not among them"},
		{"a file", "{path: DIR/one}", "DIR/one", "", ""},
		{"nothing below a file", "{path: DIR/one}", "DIR/one/x", "", "not among them"},
		{"an entry is resolved", "{path: DIR/link/}", "DIR/pay/x", "", ""},
		{"the right content", "{path: DIR/one, sha256: SUM}", "DIR/one", hexSum, ""},
		{"another content", "{path: DIR/one, sha256: SUM}", "DIR/one", "00", "another content"},
		{"another entry may allow it still", "{path: DIR/one, sha256: SUM}, {path: DIR/}", "DIR/one", "00", ""},
		{"an entry that is missing opens nothing", "{path: DIR/ghost/}", "DIR/ghost/x", "", "not among them"},
		{"and stops nothing else", "{path: DIR/ghost/}, {path: DIR/one}", "DIR/one", "", ""},
		{"a command that is not found", "{path: DIR/}", "", "", "not found"},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			fill := strings.NewReplacer("DIR", dir, "SUM", hexSum).Replace
			expect(t, ask(t, fill("allow_commands: ["+c.entries+"]"), "", "alice", 0, program{fill(c.path), c.sum}, nil), c.want)
		})
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
		t.Fatal("needs root; run: sudo make test")
	}
	t.Skip("needs root; run: sudo make test")
}

// TestFile: the file is read again when it changes, and one that cannot be used allows nothing and says why.
func TestFile(t *testing.T) {
	needRoot(t)
	r := files(t)
	path := filepath.Join(t.TempDir(), "limits.yaml")
	f := New(path, nil, r)
	a, err := r.Lookup("alice")
	if err != nil {
		t.Fatal(err)
	}
	allow := func() error {
		return f.Allow(Launch{Requester: 1500, Account: a, GID: a.GID, Command: program{path: "/bin/true"}})
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, allow(), "no such file")
	good := "version: 1\nrequesters: [agent]\n"
	write(good)
	expect(t, allow(), "")
	write(good + "deny_users: [alice]\n")
	expect(t, allow(), "deny_users")
	write(good + "deny_user: [alice]\n")
	expect(t, allow(), "limits.yaml:3")
	if p := f.Problems(); len(p) != 1 || !strings.Contains(p[0], "limits.yaml:3") {
		t.Errorf("problems: %q", p)
	}
	write(good)
	expect(t, allow(), "")
	if err := os.Chmod(path, 0o622); err != nil {
		t.Fatal(err)
	}
	expect(t, allow(), "mode")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, allow(), "")
	if err := os.Chown(path, 1500, -1); err != nil {
		t.Fatal(err)
	}
	expect(t, allow(), "owned by uid 1500")
	if err := os.Chown(path, 0, -1); err != nil {
		t.Fatal(err)
	}
	expect(t, allow(), "")
	write(good + "allow_users: [ghost, alice]\ndeny_groups: [docker, wraiths, lxd]\nallow_commands: [{path: /no/such/}, {path: /}]\n")
	expect(t, allow(), "")
	p := strings.Join(f.Problems(), "\n")
	for _, word := range []string{`allow_users: "ghost"`, `deny_groups: "wraiths"`, `allow_commands: "/no/such/"`} {
		if !strings.Contains(p, word) {
			t.Errorf("problems do not name %s:\n%s", word, p)
		}
	}
	if strings.Contains(p, "lxd") {
		t.Errorf("a usual group that this machine lacks is no problem:\n%s", p)
	}
}

// TestTarget: whose password may be tried is judged like whom a job may run as, without anybody asking.
func TestTarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "limits.yaml")
	f := New(path, []uint32{900}, files(t))
	a, err := files(t).Lookup("alice")
	if err != nil {
		t.Fatal(err)
	}
	expect(t, f.Target(a), "no such file")
	for _, c := range []struct{ user, want string }{
		{"alice", ""}, {"root", "is root"}, {"low", "min_uid"}, {"admin", `"sudo"`}, {"agent", "is a requester"}, {"bob", "deny_users"},
	} {
		limits, err := config.ParseLimits("limits.yaml", []byte("version: 1\nrequesters: [agent]\ndeny_users: [bob]\nallow_commands: [{path: /none}]\n"))
		if err != nil {
			t.Fatal(err)
		}
		if a, err = files(t).Lookup(c.user); err != nil {
			t.Fatal(err)
		}
		expect(t, f.mayBe(limits, a), c.want)
	}
}
