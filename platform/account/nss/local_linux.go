package nss

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"batchwarden/platform/account"
)

// errElsewhere reports that the files do not suffice: only the resolver itself can answer.
var errElsewhere = errors.New("only the system's resolver can say")

// local answers from the files where they decide what the resolver would answer:
//
//   - nscd does not run: it would be asked first, and may be behind;
//   - every line of a file is written as the tools write it, so that the C library reads it as we do;
//   - an account or group that was found is in the first source (files, or compat without its special lines), whose
//     answer is final as nothing else was written about it;
//   - one that was not found, and the groups of an account, want every source to be such a one, or systemd's while it
//     can have nothing to add.
//
// Files are read again when they change; see state.
type local struct {
	conf     state[*conf]
	accounts state[*accounts]
	groups   state[*groups]
	nscd     string

	// What systemd's source looks at: who else provides accounts, its own dynamic users, machines, and records in files.
	providers, dynamic, machines state[[]string]
	records                      [5]state[[]string]

	mu     sync.Mutex   // guards what follows
	quiet  [2]time.Time // until when it is remembered that systemd has no members, and no names, to add
	lately groupNames
}

// groupNames are what the files say of groups' names, for as long as they are taken for that.
type groupNames struct {
	*groups
	conf  *conf
	until time.Time
}

// newLocal takes the root directory for tests.
func newLocal(root string) *local {
	at := func(path string) string { return filepath.Join(root, path) }
	dir := func(path string) state[[]string] { return state[[]string]{path: at(path), read: entries} }
	return &local{
		conf:      state[*conf]{path: at("etc/nsswitch.conf"), read: readConf},
		accounts:  state[*accounts]{path: at("etc/passwd"), read: readAccounts},
		groups:    state[*groups]{path: at("etc/group"), read: readGroups},
		nscd:      at("var/run/nscd/socket"),
		providers: dir("run/systemd/userdb"),
		dynamic:   dir("run/systemd/dynamic-uid"),
		machines:  dir("run/systemd/machines"),
		records:   [5]state[[]string]{dir("etc/userdb"), dir("run/userdb"), dir("run/host/userdb"), dir("usr/local/lib/userdb"), dir("usr/lib/userdb")},
	}
}

func elsewhere(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errElsewhere, fmt.Sprintf(format, args...))
}

// lookup, byUID and groupByName answer as account.Resolver's methods do, or with errElsewhere. What the files say is what
// they say now, or for the name of a group said a Moment ago; that systemd has nothing to add may be remembered, but not
// if fresh is wanted.
func (l *local) lookup(name string, fresh bool) (account.Account, error) {
	t, c, err := l.users()
	if err != nil {
		return account.Account{}, err
	}
	if a := t.byName[name]; a != nil {
		return l.withGroups(*a, c, fresh)
	}
	return account.Account{}, l.missing(c.accounts, "account "+strconv.Quote(name), name == "root" || name == "nobody", fresh)
}

func (l *local) byUID(uid uint32) (account.Account, error) {
	t, c, err := l.users()
	if err != nil {
		return account.Account{}, err
	}
	if a := t.byUID[uid]; a != nil {
		return l.withGroups(*a, c, false)
	}
	return account.Account{}, l.missing(c.accounts, "uid "+strconv.FormatUint(uint64(uid), 10), uid == 0 || uid == 65534, false)
}

func (l *local) groupByName(name string) (account.Group, error) {
	t, err := l.groupNames()
	if err != nil {
		return account.Group{}, err
	}
	if gid, ok := t.byName[name]; ok {
		return account.Group{GID: gid, Name: name}, nil
	}
	return account.Group{}, l.missing(t.conf.groups, "group "+strconv.Quote(name), name == "root" || name == "nobody" || name == "nogroup", false)
}

// groupNames looks at the files, or has looked at them a Moment ago.
func (l *local) groupNames() (groupNames, error) {
	l.mu.Lock()
	t := l.lately
	l.mu.Unlock()
	now := time.Now()
	if now.Before(t.until) {
		return t, nil
	}
	c, err := l.config()
	if err != nil {
		return groupNames{}, err
	}
	if t.groups, err = l.groupTable(); err != nil {
		return groupNames{}, err
	}
	if err := first(c.groups); err != nil {
		return groupNames{}, err
	}
	t.conf, t.until = c, now.Add(Moment)
	l.mu.Lock()
	l.lately = t
	l.mu.Unlock()
	return t, nil
}

func (l *local) config() (*conf, error) {
	c, _, err := l.conf.now()
	if err != nil {
		return nil, err
	}
	if nscd, err := stampOf(l.nscd); err != nil || nscd.there {
		return nil, elsewhere("nscd runs")
	}
	return c, nil
}

func (l *local) users() (*accounts, *conf, error) {
	c, err := l.config()
	if err != nil {
		return nil, nil, err
	}
	t, _, err := l.accounts.now()
	switch {
	case err != nil:
		return nil, nil, elsewhere("%v", err)
	case t.odd > 0:
		return nil, nil, elsewhere("%s: line %d is not written as usual", l.accounts.path, t.odd)
	}
	return t, c, first(c.accounts)
}

func (l *local) groupTable() (*groups, error) {
	t, _, err := l.groups.now()
	switch {
	case err != nil:
		return nil, elsewhere("%v", err)
	case t.odd > 0:
		return nil, elsewhere("%s: line %d is not written as usual", l.groups.path, t.odd)
	}
	return t, nil
}

func ofFiles(s source) bool { return s.plain && (s.name == "files" || s.name == "compat") }

// first wants the files to be asked first.
func first(s sources) error {
	if len(s) == 0 || !ofFiles(s[0]) {
		return elsewhere("the files are not what is asked first")
	}
	return nil
}

// missing is the answer for what is not in the files. Systemd invents some that everybody must have.
func (l *local) missing(list sources, what string, invented, fresh bool) error {
	for _, s := range list {
		if ofFiles(s) {
			continue
		}
		if s.name != "systemd" || !s.plain || invented {
			return elsewhere("%s is asked, too", s.name)
		}
		if err := l.systemd(names, fresh); err != nil {
			return err
		}
	}
	return fmt.Errorf("account: %s: %w", what, account.ErrMissing)
}

// withGroups fills in the groups of an account of the files.
func (l *local) withGroups(a account.Account, c *conf, fresh bool) (account.Account, error) {
	t, err := l.groupTable()
	if err == nil {
		err = first(c.members)
	}
	for _, s := range c.members {
		switch {
		case err != nil:
			return account.Account{}, err
		case ofFiles(s):
		case s.name == "systemd" && s.plain:
			err = l.systemd(members, fresh)
		default:
			err = elsewhere("%s is asked for groups, too", s.name)
		}
	}
	if err != nil {
		return account.Account{}, err
	}
	more := t.of[a.Name]
	a.Groups = make([]account.Group, 1, len(more)+1)
	a.Groups[0] = account.Group{GID: a.GID, Name: t.names[a.GID]}
	for _, g := range more {
		if !slices.ContainsFunc(a.Groups, func(h account.Group) bool { return h.GID == g.GID }) {
			a.Groups = append(a.Groups, g)
		}
	}
	a.OwnGroup = t.own(a.Name, a.GID)
	return a, nil
}

func (t *groups) own(name string, gid uint32) bool { return t.names[gid] == name && !t.shared[gid] }

// own reports whether the files know the group as the account's own.
func (l *local) own(name string, gid uint32) bool {
	t, err := l.groupTable()
	return err == nil && t.own(name, gid)
}

// What systemd's source may add: members of groups to what is known, or names as well.
const (
	members = iota
	names
)

// systemd returns nil when systemd's source has nothing of that kind to add to the files.
func (l *local) systemd(kind int, fresh bool) error {
	now := time.Now()
	l.mu.Lock()
	quiet := now.Before(l.quiet[kind])
	l.mu.Unlock()
	if quiet && !fresh {
		return nil
	}
	if err := l.mayAdd(kind); err != nil {
		return err
	}
	l.mu.Lock()
	l.quiet[kind] = now.Add(Remembered)
	l.mu.Unlock()
	return nil
}

// mayAdd looks for other providers than systemd's own, of which none knows members; for records in files; and, for
// names, for dynamic users and machines.
func (l *local) mayAdd(kind int) error {
	providers, _, err := l.providers.now()
	if err != nil {
		return elsewhere("%v", err)
	}
	for _, p := range providers {
		switch p {
		case "io.systemd.DynamicUser", "io.systemd.Machine", "io.systemd.DropIn", "io.systemd.Multiplexer", "io.systemd.NameServiceSwitch":
		default:
			return elsewhere("systemd asks %s", p)
		}
	}
	var dirs []*state[[]string]
	if kind == names {
		dirs = append(dirs, &l.dynamic, &l.machines)
	}
	for i := range l.records {
		dirs = append(dirs, &l.records[i])
	}
	for _, dir := range dirs {
		if found, _, err := dir.now(); err != nil || len(found) > 0 {
			return elsewhere("systemd knows what is in %s", dir.path)
		}
	}
	return nil
}

// stamps names the state of the files that answers of other sources are remembered by.
func (l *local) stamps() (all [3]stamp, err error) {
	for i, path := range []string{l.conf.path, l.accounts.path, l.groups.path} {
		if all[i], err = stampOf(path); err != nil {
			return all, err
		}
	}
	return all, nil
}
