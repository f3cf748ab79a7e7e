// Package limits answers, from the host owner's limits.yaml, whether a launch may be. Whatever was synced, and whatever
// the daemon says, this has the last word.
package limits

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"batchwarden/daemon/config"
	"batchwarden/platform/account"
)

// Command is the file that a launch would execute, looked for when it is asked about.
type Command interface {
	Path() (string, error)   // absolute, links resolved
	SHA256() (string, error) // lower-case hex
}

// Launch is what is asked about, after the last look-up of the account.
type Launch struct {
	Requester uint32 // who asks, as the kernel says
	Account   account.Account
	GID       uint32 // the primary group that the job would have
	Env       []string
	Command   Command
	Nice      int               // that the request asks for; 0: none
	Resources map[string]uint64 // likewise, by the names of setrlimit(2)
	Own       map[string]uint64 // of these, the ceiling where `max` has none: what the launcher itself may have
}

// File is a limits.yaml that is read again whenever it has changed.
type File struct {
	path     string
	own      []uint32
	accounts account.Resolver

	mu     sync.Mutex // guards what follows
	stamp  string
	limits *config.Limits
	err    error
}

// New names the file; nothing is read yet. Own are the uids of our own accounts, which are never targets.
func New(path string, own []uint32, accounts account.Resolver) *File {
	return &File{path: path, own: own, accounts: accounts}
}

// current returns what the file says now, or why it cannot be used.
func (f *File) current() (*config.Limits, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err != nil {
		f.stamp, f.limits, f.err = "", nil, err
		return nil, err
	}
	// What the system says about a file, its owner and the time of its last change included: a name for its state
	// that needs no knowledge of the system's own type.
	if stamp := fmt.Sprintf("%v %v", info.Mode(), info.Sys()); stamp != f.stamp {
		// The stamp is older than what is read: a change in between is seen the next time.
		f.stamp = stamp
		f.limits, f.err = config.LoadLimits(f.path)
	}
	return f.limits, f.err
}

// Allow returns nil when the host's owner lets the launch be, else the reason why not. A file that cannot be used
// allows nothing.
func (f *File) Allow(l Launch) error {
	limits, err := f.current()
	if err != nil {
		return err
	}
	return f.judge(limits, l)
}

// Target returns nil when the host's owner lets somebody have jobs as the account, else the reason why not.
func (f *File) Target(a account.Account) error {
	limits, err := f.current()
	if err != nil {
		return err
	}
	return f.mayBe(limits, a)
}

func (f *File) mayBe(limits *config.Limits, a account.Account) error {
	q := question{Limits: limits, Launch: Launch{Account: a, GID: a.GID}, file: f}
	return first(q.target, q.ids, q.users, q.groups)
}

// Max are the ceilings of every job's limits. A file that cannot be used has none, and allows nothing.
func (f *File) Max() map[string]uint64 {
	limits, err := f.current()
	if err != nil {
		return nil
	}
	return limits.Max
}

func (f *File) judge(limits *config.Limits, l Launch) error {
	q := question{Limits: limits, Launch: l, file: f}
	return first(q.requester, q.target, q.ids, q.users, q.groups, q.commands, q.env, q.resources)
}

// first is the first reason why not.
func first(checks ...func() error) error {
	for _, check := range checks {
		if err := check(); err != nil {
			return fmt.Errorf("limits.yaml: %w", err)
		}
	}
	return nil
}

// question is one launch held against the limits of one moment.
type question struct {
	*config.Limits
	Launch
	file *File
}

// asRoot reports whether the launch is one of root's that the owner allows as such: by both entries.
func (q *question) asRoot() bool {
	return q.Account.UID == 0 && q.AllowRoot && slices.Contains(q.AllowUsers, "root")
}

// errSilent says that a look-up had no answer: that is not "does not exist".
func errSilent(list, name string, err error) error {
	return fmt.Errorf("%s: %q cannot be looked up, so nothing is allowed: %w", list, name, err)
}

// requester wants the asking user among the requesters.
func (q *question) requester() error {
	var silent error
	for _, name := range q.Requesters {
		a, err := q.file.accounts.Lookup(name)
		switch {
		case err == nil && a.UID == q.Requester:
			return nil
		case err != nil && !errors.Is(err, account.ErrMissing) && silent == nil:
			silent = errSilent("requesters", name, err)
		}
	}
	if silent != nil {
		return silent
	}
	return fmt.Errorf("requesters: uid %d is not one of them", q.Requester)
}

// target refuses the accounts that hold keys, and those that ask: a job could act as them.
func (q *question) target() error {
	if slices.Contains(q.file.own, q.Account.UID) {
		return fmt.Errorf("%q is an account of batchwarden itself", q.Account.Name)
	}
	return q.listed("requesters", q.Requesters, "is a requester, and those are never targets")
}

// listed refuses the account when it is in the list, by its name as written or by its number.
func (q *question) listed(list string, names []string, why string) error {
	for _, name := range names {
		if name == q.Account.Name {
			return fmt.Errorf("%s: %q %s", list, name, why)
		}
		a, err := q.file.accounts.Lookup(name)
		switch {
		case errors.Is(err, account.ErrMissing):
		case err != nil:
			return errSilent(list, name, err)
		case a.UID == q.Account.UID:
			return fmt.Errorf("%s: %q %s, and %q has the same uid %d", list, name, why, q.Account.Name, a.UID)
		}
	}
	return nil
}

// ids holds uid and every gid against the minimums.
func (q *question) ids() error {
	uid := q.Account.UID
	switch {
	case q.asRoot():
	case uid == 0:
		return fmt.Errorf("%q is root (uid 0), which needs allow_root and root in allow_users", q.Account.Name)
	case uid < q.MinUID:
		return fmt.Errorf("min_uid: %q has uid %d, below %d", q.Account.Name, uid, q.MinUID)
	}
	for _, gid := range append([]uint32{q.GID}, q.Account.GIDs()...) {
		if gid < q.MinGID && !(gid == 0 && q.asRoot()) {
			return fmt.Errorf("min_gid: %q is in group %d, below %d", q.Account.Name, gid, q.MinGID)
		}
	}
	return nil
}

// users holds the account against deny_users and allow_users.
func (q *question) users() error {
	if err := q.listed("deny_users", q.DenyUsers, "is denied"); err != nil {
		return err
	}
	// By name only: the account was found under its name a moment ago, so an entry that equals it exists.
	if len(q.AllowUsers) > 0 && !slices.Contains(q.AllowUsers, q.Account.Name) {
		return fmt.Errorf("allow_users: %q is not among them", q.Account.Name)
	}
	return nil
}

// groups refuses an account that is in a denied group, by that one's name as written or by its number.
func (q *question) groups() error {
	for _, name := range q.DenyGroups {
		if name == "root" && q.asRoot() {
			continue
		}
		for _, g := range q.Account.Groups {
			if g.Name == name {
				return fmt.Errorf("deny_groups: %q is in group %q", q.Account.Name, name)
			}
		}
		denied, err := q.file.accounts.GroupByName(name)
		switch {
		case errors.Is(err, account.ErrMissing):
			continue
		case err != nil:
			return errSilent("deny_groups", name, err)
		}
		if denied.GID == q.GID || slices.Contains(q.Account.GIDs(), denied.GID) {
			return fmt.Errorf("deny_groups: %q is in group %d, which is %q", q.Account.Name, denied.GID, name)
		}
	}
	return nil
}

// Problems lists what an operator should mend: the file's fault, or entries whose account or group or file cannot be
// found, which open nothing.
func (f *File) Problems() []string {
	limits, err := f.current()
	if err != nil {
		return []string{"limits.yaml: every launch is refused: " + strings.ReplaceAll(err.Error(), "\n", "; ")}
	}
	var problems []string
	add := func(list, name string, err error) {
		if err != nil {
			problems = append(problems, fmt.Sprintf("limits.yaml: %s: %q: %v", list, name, err))
		}
	}
	for list, names := range map[string][]string{"requesters": limits.Requesters, "allow_users": limits.AllowUsers, "deny_users": limits.DenyUsers} {
		for _, name := range names {
			_, err := f.accounts.Lookup(name)
			add(list, name, err)
		}
	}
	// A group that is not there is nobody's. The built-in list names some that most machines lack.
	for _, name := range limits.DenyGroups {
		if _, err := f.accounts.GroupByName(name); err != nil && (!errors.Is(err, account.ErrMissing) || !usual[name]) {
			add("deny_groups", name, err)
		}
	}
	for _, c := range limits.AllowCommands {
		_, err := resolve(c)
		add("allow_commands", c.Path, err)
	}
	slices.Sort(problems)
	return problems
}

// usual are the groups of the list that is in force when the file has none.
var usual = map[string]bool{"root": true, "disk": true, "shadow": true, "docker": true, "lxd": true, "sudo": true, "wheel": true, "adm": true}
