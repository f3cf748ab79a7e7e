package keeper

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
)

// script writes a file that payroll may run.
func script(t *testing.T, path, text string, uid int, mode os.FileMode) string {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chown(path, uid, uid), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	return path
}

func dir(t *testing.T, path string, uid int, mode os.FileMode) string {
	t.Helper()
	if err := errors.Join(os.Mkdir(path, 0o700), os.Chown(path, uid, uid), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	return path
}

func TestEnds(t *testing.T) {
	b := newBed(t)
	for _, c := range []struct {
		id     string
		argv   []string
		code   int
		signal string
	}{
		{"true", []string{"/bin/true"}, 0, ""},
		{"three", []string{"/bin/sh", "-c", "exit 3"}, 3, ""},
		{"high", []string{"/bin/sh", "-c", "exit 255"}, 255, ""},
		{"kill", []string{"/bin/sh", "-c", "kill -KILL $$"}, 0, "KILL"},
		{"pipe", []string{"/bin/sh", "-c", "kill -PIPE $$"}, 0, "PIPE"},
		{"path", []string{"true"}, 0, ""},
	} {
		job := b.run(spec(c.id, c.argv...))
		if job.State != launch.StateExited || job.Signal != c.signal || (c.signal == "") != (job.ExitCode != nil) || job.ExitCode != nil && *job.ExitCode != c.code {
			t.Errorf("%s: got %+v", c.id, job)
		}
		if job.PID == 0 || job.User != "payroll" || job.Started.IsZero() || job.Ended.Before(job.Started) || job.MaxRSS < 1<<16 || job.EndSeq == 0 {
			t.Errorf("%s: incomplete: %+v", c.id, job)
		}
	}
	if got := b.boxed(); len(got) != 0 {
		t.Errorf("cgroups are left: %v", got)
	}
}

// TestCannotStart: each of these was granted and journalled and is a failed job with its code.
func TestCannotStart(t *testing.T) {
	b := newBed(t)
	home := "/mnt/home/payroll/"
	open := dir(t, "/mnt/open", 0, 0o777)
	sticky := dir(t, "/mnt/sticky", 0, 0o777|os.ModeSticky)
	foreign := dir(t, "/mnt/foreign", otherUID, 0o755)
	if err := os.Symlink(script(t, home+"good", "#!/bin/sh\n", jobUID, 0o755), sticky+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(sticky+"/link", otherUID, otherUID); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id   string
		edit func(*launch.Spec)
		code string
		word string
	}{
		{"missing", argv("/no/such/command"), launch.CodeNotFound, "command"},
		{"not-in-path", argv("no-such-command"), launch.CodeNotFound, "PATH"},
		{"below-a-file", argv("/bin/true/x"), launch.CodeNotFound, "ENOTDIR"},
		{"directory", argv("/usr"), launch.CodeForbidden, "regular"},
		{"not-executable", argv("/etc/passwd"), launch.CodeForbidden, "not executable"},
		{"others-secret", argv("/root/x"), launch.CodeForbidden, "EACCES"},
		{"anybody-writes", argv(script(t, home+"w", "#!/bin/sh\n", jobUID, 0o757)), launch.CodeForbidden, "everybody"},
		{"group-writes", argv(groupWritable(t, home+"g")), launch.CodeForbidden, "group 4400"},
		{"another-owns", argv(script(t, home+"o", "#!/bin/sh\n", otherUID, 0o755)), launch.CodeForbidden, "uid 4101"},
		{"open-directory", argv(script(t, open+"/x", "#!/bin/sh\n", 0, 0o755)), launch.CodeForbidden, "everybody"},
		{"foreign-directory", argv(script(t, foreign+"/x", "#!/bin/sh\n", 0, 0o755)), launch.CodeForbidden, "uid 4101"},
		{"foreign-link", argv(sticky + "/link"), launch.CodeForbidden, "uid 4101"},
		{"foreign-in-sticky", argv(script(t, sticky+"/x", "#!/bin/sh\n", otherUID, 0o755)), launch.CodeForbidden, "uid 4101"},
		{"no-interpreter", argv(script(t, home+"i", "#!/no/such/interpreter\n", jobUID, 0o755)), launch.CodeNotFound, "interpreter"},
		{"no-format", argv(script(t, home+"f", "echo\n", jobUID, 0o755)), launch.CodeFailed, "ENOEXEC"},
		{"no-directory", func(s *launch.Spec) { s.Dir = "/no/such/dir" }, launch.CodeChdir, "ENOENT"},
		{"directory-is-file", func(s *launch.Spec) { s.Dir = "/etc/passwd" }, launch.CodeChdir, "ENOTDIR"},
		{"not-his-directory", func(s *launch.Spec) { s.Dir = "/root" }, launch.CodeChdir, "EACCES"},
		{"home-is-missing", func(s *launch.Spec) { s.Account = "homeless" }, launch.CodeChdir, "ENOENT"},
		{"no-home", func(s *launch.Spec) { s.Account = "nohome" }, launch.CodeChdir, "ENOENT"},
		{"too-much", func(s *launch.Spec) { s.Env = map[string]string{"BIG": strings.Repeat("x", 2<<20)} }, launch.CodeFailed, "E2BIG"},
	} {
		s := spec(c.id, "/bin/true")
		c.edit(&s)
		job := b.run(s)
		if job.State != launch.StateFailed || job.Code != c.code || !strings.Contains(job.Reason, c.word) || job.PID != 0 || job.ExitCode != nil {
			t.Errorf("%s: got %s %s %q, want %s with %q", c.id, job.State, job.Code, job.Reason, c.code, c.word)
		}
	}
	if got := b.boxed(); len(got) != 0 {
		t.Errorf("cgroups are left: %v", got)
	}
}

func argv(words ...string) func(*launch.Spec) { return func(s *launch.Spec) { s.Argv = words } }

func groupWritable(t *testing.T, path string) string {
	script(t, path, "#!/bin/sh\n", jobUID, 0o755)
	if err := errors.Join(os.Chown(path, jobUID, 4400), os.Chmod(path, 0o775)); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestScripts: what may run although it is not a plain file of root's.
func TestScripts(t *testing.T) {
	b := newBed(t)
	home := "/mnt/home/payroll/"
	sticky := dir(t, "/mnt/sticky2", 0, 0o777|os.ModeSticky)
	own := script(t, home+"own", "#!/bin/sh\necho \"$0\" \"$@\"\n", jobUID, 0o700)
	upg := script(t, home+"upg", "#!/bin/sh\necho own group\n", jobUID, 0o770)
	inSticky := script(t, sticky+"/mine", "#!/bin/sh\necho sticky\n", jobUID, 0o700)
	if err := os.Symlink(own, home+"link"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(home + "link") })
	want(t, "a script", b.says("own", own, "a", "b c"), own+" a b c\n")
	want(t, "a relative one", b.says("relative", "./own"), "./own\n")
	want(t, "a link", b.says("link", home+"link"), home+"link\n")
	want(t, "writable by the user's own group", b.says("upg", upg), "own group\n")
	want(t, "in a sticky directory", b.says("sticky", inSticky), "sticky\n")
	if job := b.wait("own"); !job.ByPath {
		t.Error("a script was executed by its descriptor?")
	}
	b.says("binary", "/bin/true")
	if job := b.wait("binary"); job.ByPath {
		t.Error("a binary was executed by its path")
	}
}

// TestSurvivors: whom the command leaves behind is ended, counted and gone when the job has ended.
func TestSurvivors(t *testing.T) {
	for name, edit := range map[string]func(*Config){
		"cgroup":  func(*Config) {},
		"session": func(c *Config) { c.CgroupRoot = "/proc/no-cgroups-here" },
	} {
		t.Run(name, func(t *testing.T) {
			needRoot(t)
			c := configure(t)
			edit(&c)
			b := start(t, c)
			// One leaves the session.
			text, count := "setsid sh -c 'echo $$; trap \"\" TERM; sleep 61' & sleep 60 & echo $!; sleep 60 & echo $!; exit 4", 3
			// Until all have said their number.
			job := b.run(spec("survivors", "/bin/sh", "-c", strings.Replace(text, "exit 4", "while [ $(wc -l < /proc/$$/fd/1) -lt "+string(rune('0'+count))+" ]; do sleep 0.02; done; exit 4", 1)))
			if job.ExitCode == nil || *job.ExitCode != 4 || job.Survivors < count {
				t.Errorf("got %+v, want exit code 4 and %d survivors", job, count)
			}
			pids := strings.Fields(b.output("survivors", launch.Stdout))
			if len(pids) != count {
				t.Errorf("%d processes said their number", len(pids))
			}
			for _, p := range pids {
				if alive(number(t, p)) {
					t.Errorf("process %s still runs", p)
				}
			}
			if got := b.boxed(); len(got) != 0 {
				t.Errorf("cgroups are left: %v", got)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	b := newBed(t)
	s := spec("polite", "/bin/sh", "-c", "trap 'echo bye; exit 7' TERM; sleep 60 & wait")
	s.Timeout, s.Grace = 300*time.Millisecond, 10*time.Second
	job := b.run(s)
	if job.State != launch.StateFailed || job.Code != launch.CodeTimeout || job.ExitCode == nil || *job.ExitCode != 7 {
		t.Errorf("got %+v, want exit code 7 and %s", job, launch.CodeTimeout)
	}
	want(t, "output", b.output("polite", launch.Stdout), "bye\n")

	s = spec("stubborn", "/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
	s.Timeout, s.Grace = 200*time.Millisecond, 200*time.Millisecond
	job = b.run(s)
	if job.State != launch.StateFailed || job.Code != launch.CodeTimeout || job.Signal != "KILL" {
		t.Errorf("got %+v, want KILL and %s", job, launch.CodeTimeout)
	}
	if took := job.Ended.Sub(job.Started); took < 400*time.Millisecond || took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// changing answers about an account as it was, and when asked anew about what became of it.
type changing struct {
	account.Resolver
	edit func(*account.Account) error
}

func (c changing) Fresh(name string) (account.Account, error) {
	a, err := c.Resolver.Fresh(name)
	if err == nil {
		err = c.edit(&a)
	}
	return a, err
}

// TestAccountChanged: an account that is another one when the child exists is not used.
func TestAccountChanged(t *testing.T) {
	for name, edit := range map[string]func(*account.Account) error{
		"uid":     func(a *account.Account) error { a.UID = otherUID; return nil },
		"group":   func(a *account.Account) error { a.Groups = a.Groups[:1]; return nil },
		"home":    func(a *account.Account) error { a.Home = "/"; return nil },
		"deleted": func(*account.Account) error { return account.ErrMissing },
	} {
		t.Run(name, func(t *testing.T) {
			needRoot(t)
			c := configure(t)
			c.Accounts = changing{account.System(), edit}
			job := start(t, c).run(spec("changed", "/bin/sh", "-c", "id"))
			if job.State != launch.StateFailed || job.Code != launch.CodeChanged {
				t.Errorf("got %+v, want %s", job, launch.CodeChanged)
			}
		})
	}
}

// TestCapture: over its limit a stream keeps its head and its tail, at their offsets.
func TestCapture(t *testing.T) {
	b := newBed(t)
	s := spec("chatty", "/bin/sh", "-c", "echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last; echo err >&2")
	s.CaptureMax = 64 << 10
	b.succeeded(b.run(s))
	f, err := b.launcher.Output(b.ctx(), "lsam", "chatty", launch.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("the daemon's descriptor can be written to")
	}
	text := b.output("chatty", launch.Stdout)
	if len(text) != 3000012 || !strings.HasPrefix(text, "first\nxxx") || !strings.HasSuffix(text, "xxx\nlast\n") || !strings.Contains(text, "\x00") {
		t.Errorf("%d octets, begins %.12q, ends %q", len(text), text, text[max(0, len(text)-12):])
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 80<<10 {
		t.Errorf("it takes %d octets on the disk, %v", st.Blocks*512, err)
	}
	want(t, "stderr", b.output("chatty", launch.Stderr), "err\n")
	_, err = b.launcher.Output(b.ctx(), "lsam", "chatty", "../journal.jsonl")
	refusal(t, err, launch.CodeInvalid)
}

func TestIdempotency(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	s := spec("once", "/bin/sh", "-c", "echo x >> /mnt/home/payroll/once")
	type answer struct {
		job   launch.Job
		again bool
		err   error
	}
	answers := make(chan answer)
	for range 8 {
		go func() {
			job, again, err := b.launcher.Start(b.ctx(), conn, s)
			answers <- answer{job, again, err}
		}()
	}
	first := 0
	serial := uint64(0)
	for range 8 {
		a := <-answers
		if a.err != nil || serial != 0 && a.job.Serial != serial {
			t.Errorf("got %+v", a)
		}
		if serial = a.job.Serial; !a.again {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d of 8 were the first", first)
	}
	b.wait("once")
	if text, err := os.ReadFile("/mnt/home/payroll/once"); err != nil || string(text) != "x\n" {
		t.Errorf("it ran %d times, %v", len(text)/2, err)
	}
	if err := os.Remove("/mnt/home/payroll/once"); err != nil {
		t.Error(err)
	}
	s.Argv = []string{"/bin/true"}
	other := s
	other.Hash = "another"
	b.refused(conn, other, launch.CodeConflict)
	other.Owner = "somebody-else"
	if _, again, err := b.launcher.Start(b.ctx(), conn, other); err != nil || again {
		t.Errorf("the same id of another owner: again %v, %v", again, err)
	}
	made := s
	made.ID = ""
	x, _, err := b.launcher.Start(b.ctx(), conn, made)
	y, again, err2 := b.launcher.Start(b.ctx(), conn, made)
	if err != nil || err2 != nil || again || x.ID == "" || x.ID == y.ID {
		t.Errorf("without an id: %q and %q, %v, %v", x.ID, y.ID, err, err2)
	}
	jobs, err := b.launcher.Jobs(b.ctx(), "lsam")
	if err != nil || len(jobs) != 3 {
		t.Errorf("%d jobs, %v", len(jobs), err)
	}
	if jobs, err = b.launcher.Jobs(b.ctx(), ""); err != nil || len(jobs) != 4 {
		t.Errorf("%d jobs of all, %v", len(jobs), err)
	}
}

// TestRefusals: none of these leaves an id.
func TestRefusals(t *testing.T) {
	needRoot(t)
	c := configure(t)
	c.Bounds = func() Bounds { return Bounds{Keep: time.Hour, CaptureMax: 1 << 20, MaxRunning: 1} }
	b := start(t, c)
	conn, _ := b.requester(agentUID)
	for name, edit := range map[string]func(*launch.Spec){
		"empty argv":      func(s *launch.Spec) { s.Argv = nil },
		"empty command":   func(s *launch.Spec) { s.Argv = []string{""} },
		"NUL in argv":     func(s *launch.Spec) { s.Argv = []string{"/bin/true", "a\x00b"} },
		"NUL in env":      func(s *launch.Spec) { s.Env = map[string]string{"A": "\x00"} },
		"= in env":        func(s *launch.Spec) { s.Env = map[string]string{"A=B": ""} },
		"relative dir":    func(s *launch.Spec) { s.Dir = "tmp" },
		"umask":           func(s *launch.Spec) { u := uint32(0o7777); s.Umask = &u },
		"stdio":           func(s *launch.Spec) { s.Stdio = "loud" },
		"no owner":        func(s *launch.Spec) { s.Owner = "" },
		"no hash":         func(s *launch.Spec) { s.Hash = "" },
		"id":              func(s *launch.Spec) { s.ID = "../x" },
		"note":            func(s *launch.Spec) { s.Note = []byte(`"` + strings.Repeat("x", launch.MaxNote) + `"`) },
		"negative time":   func(s *launch.Spec) { s.Timeout = -1 },
		"too large":       func(s *launch.Spec) { s.Argv = []string{"/bin/true", strings.Repeat("x", 5<<20)} },
		"newline in user": func(s *launch.Spec) { s.Account = "root\nx" },
	} {
		s := spec("refused", "/bin/true")
		edit(&s)
		t.Log(name)
		b.refused(conn, s, launch.CodeInvalid)
	}
	s := spec("nobody", "/bin/true")
	s.Account = "nosuchaccount"
	b.refused(conn, s, launch.CodeMissing, "nosuchaccount")
	s = spec("group", "/bin/true")
	s.Group = "keys"
	b.refused(conn, s, launch.CodeMissing, "keys")
	stranger, _ := b.requester(otherUID)
	b.refused(stranger, spec("stranger", "/bin/true"), launch.CodeRefused, "not a requester")

	if _, _, err := b.launcher.Start(b.ctx(), conn, spec("long", "/bin/sleep", "20")); err != nil {
		t.Fatal(err)
	}
	b.refused(conn, spec("one-too-many", "/bin/true"), launch.CodeOverloaded)
	if dirs, err := filepath.Glob(b.config.StateDir + "/jobs/*"); err != nil || len(dirs) != 1 {
		t.Errorf("output of refused launches: %v, %v", dirs, err)
	}
	b.signal("long", "KILL") // it would go on after its launcher
	b.wait("long")
}

// TestEnded: ends come in their order, to whoever asks from wherever.
func TestEnded(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	waiting := make(chan []launch.Job, 1)
	go func() {
		jobs, err := b.launcher.Ended(b.ctx(), 0)
		if err != nil {
			t.Error(err)
		}
		waiting <- jobs
	}()
	for _, id := range []string{"a", "b", "c", "d"} {
		if _, _, err := b.launcher.Start(b.ctx(), conn, spec(id, "/bin/true")); err != nil {
			t.Fatal(err)
		}
		b.wait(id)
	}
	first := <-waiting
	if len(first) == 0 || first[0].ID != "a" || first[0].EndSeq != 1 {
		t.Errorf("got %+v", first)
	}
	rest, err := b.launcher.Ended(b.ctx(), 2)
	if err != nil || len(rest) != 2 || rest[0].ID != "c" || rest[1].ID != "d" {
		t.Errorf("got %+v, %v", rest, err)
	}
}
