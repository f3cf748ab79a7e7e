package keeper

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/launch/become"
	"batchwarden/platform/localsock"
)

const (
	notRoot = "launcher: the launcher is not root, so it cannot start jobs as other users"

	maxName   = 256 // octets of an owner, a hash or an account's name
	maxID     = 128
	idLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-"
)

// launch decides on one request and starts the job. Until the job is entered nothing is changed, and a refusal leaves
// no id.
func (k *keeper) launch(ctx context.Context, s *launch.Spec, conn *os.File, stdio ...*os.File) (launch.Job, bool, error) {
	if err := check(s); err != nil {
		return launch.Job{}, false, err
	}
	if !k.root {
		return launch.Job{}, false, &launch.Refused{Code: launch.CodeRefused, Reason: notRoot}
	}
	requester, err := k.requester(ctx, conn, s.Started)
	if err != nil {
		return launch.Job{}, false, err
	}
	if j, err := k.before(s); j != nil || err != nil {
		return k.again(ctx, j, err)
	}
	p, err := k.allowed(s, requester)
	if err != nil {
		return launch.Job{}, false, err
	}
	if len(stdio) > 0 {
		// The request's own is closed with its answer; the job may start later than that.
		if p.stdio, err = localsock.Dup(stdio[0], "stdio"); err != nil {
			return launch.Job{}, false, &launch.Refused{Code: launch.CodeOverloaded, Reason: err.Error()}
		}
	}
	if err := k.takeRoom(s); err != nil {
		p.close()
		return launch.Job{}, false, err
	}
	j, known, err := k.enter(s, &p)
	if known || err != nil {
		k.dismiss(p.first)
		p.close()
		k.giveRoom(textsOf(s))
		return k.again(ctx, j, err)
	}
	k.jobsDone.Go(func() {
		k.run(j, p)
		k.beginAhead()
	})
	select {
	case <-j.ready:
	case <-ctx.Done(): // nobody waits for the answer; the start goes on
	}
	return k.snapshot(j), false, nil
}

// again answers with a job that was entered before.
func (k *keeper) again(ctx context.Context, j *job, err error) (launch.Job, bool, error) {
	if err != nil {
		return launch.Job{}, false, err
	}
	select {
	case <-j.ready:
	case <-ctx.Done():
	}
	return k.snapshot(j), true, nil
}

// check holds a Spec against what the protocol allows, and fills in the launcher's defaults nowhere yet.
func check(s *launch.Spec) error {
	invalid := func(format string, args ...any) error {
		return &launch.Refused{Code: launch.CodeInvalid, Reason: fmt.Sprintf(format, args...)}
	}
	for name, text := range map[string]string{"owner": s.Owner, "hash": s.Hash, "account": s.Account} {
		if text == "" || len(text) > maxName || strings.ContainsFunc(text, control7) {
			return invalid("%s %.300q is empty, too long or has a control character", name, text)
		}
	}
	if len(s.ID) > maxID || strings.Trim(s.ID, idLetters) != "" {
		return invalid("id %.200q has more than %d characters or one that is not allowed", s.ID, maxID)
	}
	if err := checkWords(s); err != nil {
		return invalid("%v", err)
	}
	for name, value := range s.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return invalid("the environment name %.200q is empty, or it or its value has a character that cannot be there", name)
		}
	}
	if strings.ContainsRune(s.Dir, 0) || s.Dir != "" && !filepath.IsAbs(s.Dir) {
		return invalid("dir %.200q is not absolute or has a NUL", s.Dir)
	}
	switch {
	case s.Umask != nil && *s.Umask > 0o777:
		return invalid("umask %#o", *s.Umask)
	case s.Stdio != launch.StdioCapture && s.Stdio != launch.StdioNull && s.Stdio != launch.StdioPassed:
		return invalid("stdio %.100q", s.Stdio)
	case s.Nice < -20 || s.Nice > 19:
		return invalid("nice %d", s.Nice)
	case len(s.Stdin) > launch.MaxText || len(s.Stdin) > 0 && s.Stdio == launch.StdioPassed:
		return invalid("stdin of %d octets, at most %d, and none with stdio %q", len(s.Stdin), launch.MaxText, launch.StdioPassed)
	case s.CaptureMax < 0 || s.Timeout < 0 || s.Grace < 0 || s.Keep < 0:
		return invalid("a size or time is negative")
	case len(s.Note) > launch.MaxNote:
		return invalid("a note of %d octets, at most %d", len(s.Note), launch.MaxNote)
	}
	for name := range s.Limits {
		if _, known := resources[name]; !known {
			return invalid("there is no limit %.100q", name)
		}
	}
	return nil
}

// checkWords wants exactly one thing to run, in words that can be passed to a program.
func checkWords(s *launch.Spec) error {
	words, ways := s.Argv, 0
	for _, given := range []bool{len(s.Argv) > 0, s.CommandLine != "", s.Script != nil} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return fmt.Errorf("the launch has %d of command, command line and script, not one", ways)
	case s.CommandLine != "":
		words = []string{s.CommandLine}
	case s.Script != nil && len(s.Script.Text) > launch.MaxText:
		return fmt.Errorf("a script of %d octets, at most %d", len(s.Script.Text), launch.MaxText)
	case s.Script != nil:
		words = append(interpreter(s.Script, "/bin/sh"), s.Script.Args...)
	}
	if words[0] == "" {
		return errors.New("the command is empty")
	}
	for i, w := range words {
		if strings.ContainsRune(w, 0) {
			return fmt.Errorf("argument %d has a NUL", i)
		}
	}
	return nil
}

func control7(r rune) bool { return r < ' ' || r == 0x7f }

// before finds the job that the same request started earlier.
func (k *keeper) before(s *launch.Spec) (*job, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.known(s)
}

// known is before with mu held.
func (k *keeper) known(s *launch.Spec) (*job, error) {
	j := k.jobs[key{s.Owner, s.ID}]
	if s.ID == "" || j == nil {
		return nil, nil
	}
	if j.Hash != s.Hash {
		return nil, &launch.Refused{Code: launch.CodeConflict, Reason: fmt.Sprintf("id %q was used for another request", s.ID)}
	}
	return j, nil
}

// allowed asks the system who the account is, and then the host owner's limits. What they said yes to is in the plan.
func (k *keeper) allowed(s *launch.Spec, requester uint32) (plan, error) {
	a, err := k.Accounts.Lookup(s.Account)
	switch {
	case errors.Is(err, account.ErrMissing):
		return plan{}, &launch.Refused{Code: launch.CodeMissing, Reason: fmt.Sprintf("account %q does not exist on this machine", s.Account)}
	case err != nil:
		return plan{}, &launch.Refused{Code: launch.CodeUnavailable, Reason: "the accounts of this machine cannot be asked: " + err.Error()}
	}
	gid := a.GID
	if s.Group != "" {
		i := slices.IndexFunc(a.Groups, func(g account.Group) bool { return g.Name == s.Group })
		if i < 0 {
			return plan{}, &launch.Refused{Code: launch.CodeMissing, Reason: fmt.Sprintf("account %q is not in a group %q", s.Account, s.Group)}
		}
		gid = a.Groups[i].GID
	}
	env := environment(&a, s.Env)
	program, argv := words(s, &a, k.scriptPath(math.MaxUint64)) // its number is not known yet
	command := &file{name: cmp.Or(program, argv[0]), dir: cmp.Or(s.Dir, a.Home), path: pathOf(env)}
	defer command.close()
	hard, err := own(s.Limits)
	if err != nil {
		return plan{}, err
	}
	ask := Ask{
		Requester: requester, Account: a, GID: gid, Env: slices.Sorted(maps.Keys(s.Env)), Command: command,
		Nice: s.Nice, Limits: s.Limits, Own: hard,
	}
	if err := k.Allow(ask); err != nil {
		return plan{}, &launch.Refused{Code: launch.CodeRefused, Reason: err.Error()}
	}
	umask := uint32(0o022)
	if s.Umask != nil {
		umask = *s.Umask
	}
	bounds := k.Bounds()
	if s.CaptureMax == 0 || s.CaptureMax > bounds.CaptureMax {
		s.CaptureMax = bounds.CaptureMax
	}
	s.Grace = cmp.Or(s.Grace, bounds.Grace)
	p := plan{spec: s, requester: requester, ceilings: k.ceilings(), order: become.Order{
		Account: a, GID: gid, File: program, Argv: argv, Env: env, Dir: cmp.Or(s.Dir, a.Home), Umask: umask, Pin: command.pin,
		Passed: s.Stdio != launch.StdioNull || len(s.Stdin) > 0, Ignored: k.ignored,
	}}
	if s.Nice != 0 {
		p.order.Nice = &s.Nice
	}
	if p.order.Limits, err = limitsOf(s.Limits, nil, p.ceilings); err != nil {
		return plan{}, err
	}
	if p.text, err = p.order.Encode(); err != nil {
		return plan{}, &launch.Refused{Code: launch.CodeInvalid, Reason: err.Error()}
	}
	return p, nil
}

// enter gives the job its number and its place, and writes it down: from here on it is a job. A process that was begun
// ahead has the number already, and is the plan's. The job that was there before comes back with known.
func (k *keeper) enter(s *launch.Spec, p *plan) (j *job, known bool, err error) {
	k.startMu.Lock()
	defer k.startMu.Unlock()
	k.mu.Lock()
	j, err = k.known(s)
	running := len(k.live)
	stopped := k.stopped
	k.mu.Unlock()
	switch {
	case j != nil || err != nil:
		return j, j != nil, err
	case stopped:
		return nil, false, &launch.Refused{Code: launch.CodeUnavailable, Reason: "the launcher is stopping"}
	case running >= k.Bounds().MaxRunning:
		return nil, false, &launch.Refused{Code: launch.CodeOverloaded, Reason: fmt.Sprintf("%d jobs are running, as many as may", running)}
	}
	if s.ID == "" {
		s.ID = "bw-" + strings.ToLower(rand.Text())
	}
	j = newJob(k.boot, s)
	if p.first = k.takeAhead(); p.first != nil {
		j.Serial = p.first.serial
	} else {
		k.mu.Lock()
		k.serial++ // one that is not written down is not used again
		j.Serial = k.serial
		k.mu.Unlock()
	}
	start := j.Job
	if err := k.journal.append(record{Kind: kindStart, Job: &start, thread: j.thread}); err != nil {
		k.Log.Error("a launch was refused: the journal cannot be written", "err", err)
		return nil, false, &launch.Refused{Code: launch.CodeUnavailable, Reason: "the launcher's journal cannot be written"}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.jobs[key{s.Owner, s.ID}] = j
	k.live[j.Serial] = j
	return j, false, nil
}
