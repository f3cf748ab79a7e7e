package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// side is how many launch at the same time where that is measured, and
// sleepers how many jobs sleep while the launcher is weighed.
const (
	side     = 8
	sleepers = 1000
)

// launches is a bed on which jobs are started, and what was measured on it.
type launches struct {
	*testbed.Bed
	bounds
	table
	dir   string
	quick bool
}

// measureLaunches compares launches of /bin/true, from the request to the
// known exit, with other ways to do that as another user, in one table; and
// then many at a time, and what a thousand that sleep cost.
func measureLaunches(b *testbed.Bed, quick bool, out io.Writer) (found bounds, err error) {
	l := &launches{Bed: b, dir: filepath.Join(b.Root, "launches"), quick: quick}
	defer func() { err = errors.Join(err, l.close()) }()
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return l.bounds, err
	}
	for _, step := range []func() error{l.oneByOne, l.together, l.asleep} {
		if err := step(); err != nil {
			return l.bounds, err
		}
	}
	return l.bounds, l.table.print(out)
}

// oneByOne is the table, and bounds of what stands in it.
func (l *launches) oneByOne() error {
	spawn, stop, err := posixSpawn(l.dir)
	if err != nil {
		return err
	}
	l.closers = append(l.closers, stop)
	line, err := toDaemon(l.Bed)
	if err != nil {
		return err
	}
	l.closers = append(l.closers, line.conn.Close)
	ours := launch(line)
	as := l.Accounts.Payroll
	direct := command("exec from Go with credentials", "/bin/true")
	direct.once = runs(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: as.UID, Gid: as.GID, Groups: as.Groups}}, "/bin/true")
	setpriv := command("setpriv", "setpriv", fmt.Sprintf("--reuid=%d", as.UID), fmt.Sprintf("--regid=%d", as.GID), "--init-groups", "/bin/true")
	runuser := command("runuser", "runuser", "-u", as.Name, "--", "/bin/true")
	sudo := command("sudo -n -u", "sudo", "-n", "-u", as.Name, "--", "/bin/true")
	g := group{reference: spawn, figures: []*figure{ours, direct, setpriv, runuser}}
	if _, err := exec.LookPath("sudo"); err == nil {
		g.figures = append(g.figures, sudo)
	} else {
		l.left = append(l.left, "sudo is not installed")
	}
	l.groups = append(l.groups, g)
	turns := rounds{number: 60}
	if l.quick {
		turns.number = 1
	}
	for _, f := range l.all() { // so that nobody's launches have the machine for themselves
		f.per = 5
	}
	if err := turns.run(l.all()); err != nil {
		return err
	}
	half := func(f *figure) float64 { return float64(f.quantile(0.5)) }
	l.add("a launch, in posix_spawns", half(ours)/half(spawn), 2.7, "")
	l.add("a launch, in runusers", half(ours)/half(runuser), 1/3.0, "")
	if len(sudo.took) > 0 {
		l.add("a launch, in sudos", half(ours)/half(sudo), 1/3.5, "")
	}
	return nil
}

func command(name string, argv ...string) *figure {
	return &figure{name: name + " of /bin/true", once: runs(nil, argv...)}
}

func runs(attr *syscall.SysProcAttr, argv ...string) func() error {
	return func() error {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.SysProcAttr = attr
		out := strings.Builder{}
		if attr == nil { // the one that needs no program is measured as it is best
			cmd.Stderr = &out
		}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: %s", err, out.String())
		}
		return nil
	}
}

// together launches from several connections at the same time, in turns with
// as many programs in C.
func (l *launches) together() error {
	var ours, theirs [side]func() error
	for i := range side { // each has its own connection
		dir := filepath.Join(l.dir, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		spawn, stop, err := posixSpawn(dir)
		if err != nil {
			return err
		}
		l.closers = append(l.closers, stop)
		line, err := toDaemon(l.Bed)
		if err != nil {
			return err
		}
		l.closers = append(l.closers, line.conn.Close)
		theirs[i], ours[i] = spawn.once, launch(line).once
	}
	number, per := 8, 6
	if l.quick {
		number, per = 1, 1
	}
	var took [2]time.Duration
	for round := range number + 1 {
		for who, once := range [2][side]func() error{theirs, ours} {
			begun := time.Now()
			if err := all(once, per); err != nil {
				return err
			}
			if round > 0 { // the first goes to caches and connections
				took[who] += time.Since(begun)
			}
		}
	}
	l.add(fmt.Sprintf("%d launches at a time, in posix_spawns at a time", side), float64(took[1])/float64(took[0]), 1/0.3, "")
	return nil
}

// all calls each so often, all at the same time.
func all(each [side]func() error, times int) error {
	var errs [side]error
	var wg sync.WaitGroup
	for i, once := range each {
		wg.Go(func() {
			for n := 0; n < times && errs[i] == nil; n++ {
				errs[i] = once()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// asleep weighs the launcher while a thousand jobs sleep.
func (l *launches) asleep() (err error) {
	client := l.Bed.Client(l.Accounts.LSAM)
	defer client.CloseIdleConnections()
	n := sleepers
	if l.quick {
		n = 20
	}
	body := marshal(wire.Launch{Realm: testbed.Realm, Subject: wire.Subject{User: testbed.User}, BatchUser: "payroll",
		Command: []string{"/bin/sleep", "600"}, Stdio: "null"})
	var ids []string
	defer func() {
		for _, id := range ids {
			err = errors.Join(err, post(client, "/v1/jobs/"+id+"/signal", `{"signal":"KILL"}`, 200, nil))
		}
		for _, id := range ids {
			var job wire.Job
			for err == nil && !job.Done() {
				err = get(client, "/v1/jobs/"+id+"?wait=30s", &job)
			}
		}
	}()
	for range n {
		var job wire.Job
		err := post(client, "/v1/jobs", body, http.StatusCreated, func(body []byte) error { return json.Unmarshal(body, &job) })
		if err != nil {
			return err
		}
		if ids = append(ids, job.ID); job.State != wire.Running {
			return fmt.Errorf("job %s: state %s %s %s", job.ID, job.State, job.Code, job.Reason)
		}
	}
	kib, err := weigh(l.Launcher)
	if err != nil {
		return err
	}
	l.add(fmt.Sprintf("the launcher of %d sleeping jobs", n), kib*1024/1e6, 60, "MB")
	return nil
}

// weigh returns how much memory a process has, in KiB.
func weigh(p *testbed.Process) (kib float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	_, line, _ := strings.Cut(string(status), "VmRSS:")
	_, err = fmt.Sscan(line, &kib)
	return kib, err
}
