package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"batchwarden/platform/launch"
)

// status is what /proc/self/status said in a job, by name.
func status(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		m[name] = strings.Join(strings.Fields(value), " ")
	}
	return m
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// TestInside looks at a job from inside: what the kernel says about the very process that the command is.
func TestInside(t *testing.T) {
	b := newBed(t)
	s := status(b.says("status", "/bin/cat", "/proc/self/status"))
	want(t, "uids", s["Uid"], "4200 4200 4200 4200")
	want(t, "gids", s["Gid"], "4200 4200 4200 4200")
	want(t, "groups", s["Groups"], "4200 4400")
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb"} {
		want(t, set, s[set], "0000000000000000")
	}
	if s["CapBnd"] == "0000000000000000" {
		t.Error("the bounding set is empty: sudo would not work in a job")
	}
	want(t, "NoNewPrivs", s["NoNewPrivs"], "0")
	want(t, "Seccomp", s["Seccomp"], "0")
	want(t, "ignored signals", s["SigIgn"], "0000000000000000")
	want(t, "blocked signals", s["SigBlk"], "0000000000000000")
	want(t, "umask", s["Umask"], "0022")
	want(t, "name", s["Name"], "cat")
	want(t, "threads", s["Threads"], "1")
	want(t, "caught signals", s["SigCgt"], "0000000000000000")
	want(t, "seccomp filters", s["Seccomp_filters"], "0")
	want(t, "tracer", s["TracerPid"], "0")

	want(t, "limits", b.says("limits", "/bin/cat", "/proc/self/limits"), os.Getenv(limitsEnv))
	want(t, "descriptors", b.says("fds", "/bin/ls", "/proc/self/fd"), "0\n1\n2\n3\n") // 3 is ls's own
	want(t, "stdin", b.says("stdin", "/usr/bin/readlink", "/proc/self/fd/0"), "/dev/null\n")
	want(t, "cwd", b.says("cwd", "/bin/pwd"), "/mnt/home/payroll\n")
	want(t, "environment", b.says("env", "/usr/bin/env"),
		"HOME=/mnt/home/payroll\nLOGNAME=payroll\nPATH=/usr/local/bin:/usr/bin:/bin\nSHELL=/bin/sh\nUSER=payroll\n")

	stat := strings.Fields(b.says("stat", "/bin/cat", "/proc/self/stat"))
	if pid, group, session, terminal := stat[0], stat[4], stat[5], stat[6]; pid != group || pid != session || terminal != "0" {
		t.Errorf("pid %s, process group %s, session %s, terminal %s: want the same three, and 0", pid, group, session, terminal)
	}
	want(t, "nice value", stat[18], "0")
	// The kernel gives root what belongs to a process that may not be looked into.
	want(t, "whom its /proc files belong to: it is dumpable", b.says("dumpable", "/usr/bin/stat", "-c", "%u", "/proc/self/environ"), "4200\n")
	want(t, "mount namespace", b.says("mnt", "/usr/bin/readlink", "/proc/self/ns/mnt"), link(t, "/proc/self/ns/mnt"))
	want(t, "root directory", b.says("rootdir", "/usr/bin/readlink", "/proc/self/root"), "/\n")
	if _, err := os.Stat("/proc/self/loginuid"); err == nil {
		want(t, "login uid", b.says("loginuid", "/bin/cat", "/proc/self/loginuid"), "4200")
	}
	want(t, "oom score", b.says("oom", "/bin/cat", "/proc/self/oom_score_adj"), "0\n")
	if b.config.CgroupRoot != "" {
		job, err := b.launcher.Job(b.ctx(), "lsam", "oom", 0)
		if err != nil {
			t.Fatal(err)
		}
		cgroup := b.says("cgroup", "/bin/cat", "/proc/self/cgroup")
		if end := fmt.Sprintf("/%d\n", job.Serial+1); !strings.Contains(cgroup, "0::/") || !strings.HasSuffix(cgroup, end) {
			t.Errorf("the job is in %q, not in a cgroup that ends in %q", cgroup, end)
		}
	}
}

func link(t *testing.T, path string) string {
	t.Helper()
	to, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return to + "\n"
}

// TestInsideChoices looks at what a Spec can change.
func TestInsideChoices(t *testing.T) {
	b := newBed(t)
	umask := uint32(0o027)
	s := spec("choices", "/bin/sh", "-c", "umask; pwd; echo $A-$PATH; id -g; readlink /proc/self/fd/0 /proc/self/fd/1")
	s.Umask, s.Dir, s.Group = &umask, "/usr", "finance"
	s.Env = map[string]string{"A": "x y", "PATH": "/bin"}
	b.succeeded(b.run(s))
	got := strings.Split(b.output("choices", launch.Stdout), "\n")
	if len(got) < 5 || !slices.Equal(got[:4], []string{"0027", "/usr", "x y-/bin", "4400"}) {
		t.Errorf("got %q", got)
	}
	s = spec("quiet", "/bin/sh", "-c", "a=$(readlink /proc/$$/fd/1 /proc/$$/fd/2); echo $a > /mnt/home/payroll/quiet; echo lost")
	s.Stdio = launch.StdioNull
	job := b.run(s)
	if job.ExitCode == nil || *job.ExitCode != 0 || job.Captured {
		t.Errorf("got %+v", job)
	}
	text, err := os.ReadFile("/mnt/home/payroll/quiet")
	if err != nil || string(text) != "/dev/null /dev/null\n" {
		t.Errorf("stdout is %q, %v", text, err)
	}
	_, err = b.launcher.Output(b.ctx(), "lsam", "quiet", launch.Stdout)
	refusal(t, err, launch.CodeUnknown)
}

// TestGroups wants the set inside to be what the account has, by the word of id, from 40 to none.
func TestGroups(t *testing.T) {
	b := newBed(t)
	for name, count := range map[string]int{"many": 41, "lone": 1, "payroll": 2} {
		s := spec("groups-"+name, "/usr/bin/id", "-G")
		s.Account = name
		b.succeeded(b.run(s))
		s = spec("database-"+name, "/usr/bin/id", "-G", name)
		s.Account = name
		b.succeeded(b.run(s))
		inside, database := strings.Fields(b.output("groups-"+name, launch.Stdout)), strings.Fields(b.output("database-"+name, launch.Stdout))
		slices.Sort(inside)
		slices.Sort(database)
		if len(inside) != count || !slices.Equal(inside, database) {
			t.Errorf("%s: groups are %v, the account has %v", name, inside, database)
		}
	}
}

// TestNoWayBack lets jobs try to get root's rights back.
func TestNoWayBack(t *testing.T) {
	b := newBed(t)
	for id, argv := range map[string][]string{
		"setuid":    {"/usr/bin/setpriv", "--reuid", "0", "/bin/true"},
		"setgid":    {"/usr/bin/setpriv", "--regid", "0", "--keep-groups", "/bin/true"},
		"setgroups": {"/usr/bin/setpriv", "--clear-groups", "/bin/true"},
		"shadow":    {"/bin/cat", "/etc/shadow"},
		"journal":   {"/bin/cat", b.config.StateDir + "/journal.jsonl"},
		"private":   {"/bin/ls", "/proc/1/fd"},
		"launcher":  {"/bin/cat", fmt.Sprintf("/proc/%d/mem", os.Getpid())},
		"kill":      {"/bin/sh", "-c", fmt.Sprintf("kill -CONT %d", os.Getpid())},
		"limit":     {"/usr/bin/prlimit", "--pid", fmt.Sprint(os.Getpid()), "--nofile=1:1"},
		"mount":     {"/bin/mount", "-t", "tmpfs", "x", "/mnt/home/payroll"},
		"ambient":   {"/usr/bin/setpriv", "--inh-caps", "+sys_admin", "--ambient-caps", "+sys_admin", "/bin/true"},
		"loginuid":  {"/bin/sh", "-c", "echo 0 | dd of=/proc/self/loginuid"},
		"cgroup":    {"/bin/sh", "-c", "echo $$ >" + filepath.Join(b.config.CgroupRoot, "cgroup.procs")},
		"output":    {"/bin/ls", b.config.StateDir + "/jobs"},
	} {
		if id == "cgroup" && b.config.CgroupRoot == "" {
			continue
		}
		job := b.run(spec(id, argv...))
		if job.State != launch.StateExited || job.ExitCode == nil || *job.ExitCode == 0 {
			t.Errorf("%s: got %+v, want a job that ran and failed", id, job)
		}
		if stderr := b.output(id, launch.Stderr); !strings.Contains(stderr, "ermi") && !strings.Contains(stderr, "not permitted") && !strings.Contains(stderr, "must be superuser") {
			t.Errorf("%s: failed for another reason: %q", id, stderr)
		}
	}
}

// TestRoot: root's jobs have root's rights, when the limits let them be.
func TestRoot(t *testing.T) {
	b := newBed(t)
	s := spec("root", "/bin/cat", "/proc/self/status")
	s.Account, s.Dir = "root", "/"
	b.succeeded(b.run(s))
	got := status(b.output("root", launch.Stdout))
	want(t, "uids", got["Uid"], "0 0 0 0")
	if got["CapEff"] == "0000000000000000" {
		t.Error("root has no capability")
	}
}

// TestDevStdout: what scripts write to /dev/stdout and /dev/stderr arrives.
func TestDevStdout(t *testing.T) {
	b := newBed(t)
	got := b.says("dev", "/bin/sh", "-c", "echo one; echo two > /dev/stdout; echo three > /dev/stderr")
	if got != "two\n" && got != "one\ntwo\n" { // a shell's > truncates
		t.Errorf("stdout: got %q", got)
	}
	want(t, "stderr", b.output("dev", launch.Stderr), "three\n")
}
