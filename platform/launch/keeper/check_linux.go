package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
)

// checks goes through a launch up to where it would be written down, and looks whether what it would run is there. Whose
// limits are asked is whoever is at the other end of conn, or as.
func (k *keeper) checks(ctx context.Context, s *launch.Spec, conn *os.File, as *uint32) (list []launch.Check, err error) {
	if err := check(s); err != nil {
		return nil, err
	}
	note := func(step string, err error, found string) bool {
		c := launch.Check{Step: step}
		if refused, ok := err.(*launch.Refused); ok {
			c.Code, c.Reason = refused.Code, refused.Reason
		} else if err != nil {
			c.Code, c.Reason = launch.CodeInternal, err.Error()
		} else {
			c.Found = found
		}
		list = append(list, c)
		return err == nil
	}
	if !k.root {
		note("launcher", &launch.Refused{Code: launch.CodeRefused, Reason: notRoot}, "")
	} else {
		running, err := k.room()
		note("launcher", err, fmt.Sprintf("%d of at most %d jobs are running", running, k.Bounds().MaxRunning))
	}
	requester, err := k.requester(ctx, conn, s.Started)
	found := fmt.Sprintf("%s (uid %d)", k.nameOf(requester), requester)
	if as != nil {
		requester, found = *as, fmt.Sprintf("as if %s (uid %d) asked", k.nameOf(*as), *as)
	}
	if !note("requester", err, found) {
		return list, nil
	}
	p, err := k.allowed(s, requester)
	refused, _ := err.(*launch.Refused)
	if refused != nil && refused.Code != launch.CodeRefused {
		note("account", err, "")
		return list, nil
	}
	defer p.close()
	a, errAccount := k.Accounts.Lookup(s.Account)
	if errAccount != nil {
		return nil, errAccount // it was there a moment ago
	}
	note("account", nil, describe(&a))
	note("limits", err, "limits.yaml of this host lets it be")
	dir := cmp.Or(s.Dir, a.Home)
	env := environment(&a, s.Env)
	program, argv := words(s, &a, "")
	return append(list, k.lookFor(dir, cmp.Or(program, argv[0]), pathOf(env))...), nil
}

// describe says of an account what decides about a launch.
func describe(a *account.Account) string {
	groups := make([]string, len(a.Groups))
	for i, g := range a.Groups {
		groups[i] = cmp.Or(g.Name, fmt.Sprint(g.GID))
	}
	return fmt.Sprintf("%q: uid %d, groups %s, home %s, shell %s", a.Name, a.UID, strings.Join(groups, " "), a.Home, cmp.Or(a.Shell, "/bin/sh"))
}

// lookTime is how long a file system may take to say what is there; lookers how many may be waited for at one time: one
// that hangs keeps what asks it.
const (
	lookTime = 2 * time.Second
	lookers  = 4
)

// lookFor looks whether a job's directory and command are there. That they are the job's user may use is not looked
// at: the job's own process finds out as that user.
func (k *keeper) lookFor(dir, name, path string) []launch.Check {
	unseen := func(why string) []launch.Check {
		return []launch.Check{{Step: "dir", Unseen: true, Found: why}, {Step: "command", Unseen: true, Found: why}}
	}
	if k.looking.Add(1) > lookers {
		k.looking.Add(-1)
		return unseen("not looked at: file systems that were asked before do not answer")
	}
	seen := make(chan []launch.Check, 1)
	go func() { // ends when the file system answers, which one that hangs does when it comes back
		defer k.looking.Add(-1)
		seen <- []launch.Check{seeDir(dir), seeCommand(dir, name, path)}
	}()
	late := time.NewTimer(lookTime)
	defer late.Stop()
	select {
	case list := <-seen:
		return list
	case <-late.C:
		return unseen("not looked at: the file system does not answer")
	}
}

// seeDir looks at the directory that the job would begin in. Only what is surely missing is: root may be kept from
// looking where the job's user is not.
func seeDir(dir string) launch.Check {
	c := launch.Check{Step: "dir", Found: dir}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.Code, c.Reason, c.Found = launch.CodeChdir, fmt.Sprintf("the directory %q is not there", dir), ""
	case err != nil:
		c.Unseen, c.Found = true, "not looked at: "+err.Error()
	case !info.IsDir():
		c.Code, c.Reason, c.Found = launch.CodeChdir, fmt.Sprintf("%q is no directory", dir), ""
	}
	return c
}

func seeCommand(dir, name, path string) launch.Check {
	f := &file{name: name, dir: dir, path: path}
	defer f.close()
	real, err := f.Path()
	switch {
	case err == nil:
		return launch.Check{Step: "command", Found: real}
	case f.unseen != nil:
		return launch.Check{Step: "command", Unseen: true, Found: "not looked at: " + f.unseen.Error()}
	case f.unfit != "":
		return launch.Check{Step: "command", Code: launch.CodeForbidden, Reason: fmt.Sprintf("%q is not a file that can be executed", f.unfit)}
	}
	return launch.Check{Step: "command", Code: launch.CodeNotFound, Reason: err.Error()}
}

// room says whether one more job may run, and how many do.
func (k *keeper) room() (running int, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if running = len(k.live); running >= k.Bounds().MaxRunning {
		return running, &launch.Refused{Code: launch.CodeOverloaded, Reason: fmt.Sprintf("%d jobs are running, as many as may", running)}
	}
	return running, nil
}
