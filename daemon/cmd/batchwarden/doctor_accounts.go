package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"batchwarden/daemon/doctor"
	"batchwarden/ipc/wire"
	accounts "batchwarden/platform/account"
	"batchwarden/platform/account/nss"
)

// resolver asks for accounts as the launcher does.
func (d *diagnosis) resolver() *nss.Resolver {
	const program = "batchwarden-nss"
	dirs := d.helperDirs()
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
			return nss.New(filepath.Join(dir, program))
		}
	}
	return nss.New(filepath.Join(dirs[0], program)) // what needs it will say that it is not there
}

// mostAtOnce bounds the accounts that are looked at at once.
const mostAtOnce = 16

// batchAccounts looks at the account of each batch user that can be launched here.
func (d *diagnosis) batchAccounts(ctx context.Context) []doctor.Check {
	s := d.status()
	if s.err != nil {
		return s.unsaid("accounts")
	}
	byUser := map[string][]string{}
	for _, u := range s.users {
		if u.Platform == "unix" && u.Launch {
			byUser[u.Username] = append(byUser[u.Username], u.Name)
		}
	}
	if len(byUser) == 0 {
		return []doctor.Check{ok("accounts", "there is no batch user to launch as")}
	}
	names := make([]string, 0, len(byUser))
	for n := range byUser {
		names = append(names, n)
	}
	slices.Sort(names)
	checks := make([]doctor.Check, len(names))
	turn := make(chan struct{}, mostAtOnce)
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			checks[i] = d.account(ctx, name, byUser[name])
		})
	}
	all.Wait()
	return checks
}

// account looks at one account; batchUsers run as it.
func (d *diagnosis) account(ctx context.Context, user string, batchUsers []string) doctor.Check {
	name := "account." + user
	who := "batch user " + strings.Join(batchUsers, ", ")
	a, err := d.accounts.Fresh(user)
	switch {
	case ctx.Err() != nil:
		return unknown(name, "there was no time left", "batchwarden explain tells of a single launch")
	case errors.Is(err, accounts.ErrMissing):
		return problem(name, fmt.Sprintf("the account does not exist (%s)", who), "useradd --create-home "+user+", or mend username in Vault: batchwarden admin batch-user put "+batchUsers[0])
	case err != nil:
		return unknown(name, oneLine(err), "see to the system's resolver (nsswitch.conf)")
	}
	var notes []string
	for _, look := range []func() (doctor.Check, bool){
		func() (doctor.Check, bool) { return d.standing(name, user, &notes) },
		func() (doctor.Check, bool) { return home(name, a, &notes) },
		func() (doctor.Check, bool) { return shell(name, a, &notes) },
	} {
		if c, bad := look(); bad {
			c.Reason += " (" + who + ")"
			return c
		}
	}
	if len(notes) > 0 {
		return note(name, strings.Join(notes, "; "))
	}
	return ok(name, fmt.Sprintf("uid %d; not locked, not expired, home and shell are there", a.UID))
}

func (d *diagnosis) standing(name, user string, notes *[]string) (doctor.Check, bool) {
	s, err := accounts.StandingOf(user)
	now := d.app.now()
	switch {
	case errors.Is(err, accounts.ErrMissing):
		*notes = append(*notes, "the account is kept elsewhere, so whether it is locked or expired is not seen here")
	case errors.Is(err, fs.ErrPermission):
		*notes = append(*notes, "whether it is locked or expired root can see")
	case err != nil:
		*notes = append(*notes, oneLine(err))
	case s.Locked:
		return problem(name, "the account is locked: launches through PAM are refused, and so is its password", "usermod --unlock "+user), true
	case !s.Expires.IsZero() && !now.Before(s.Expires):
		return problem(name, "the account expired on "+s.Expires.Format(time.DateOnly), "chage --expiredate -1 "+user), true
	case !s.PasswordExpires.IsZero() && !now.Before(s.PasswordExpires):
		*notes = append(*notes, "its password expired on "+s.PasswordExpires.Format(time.DateOnly)+"; launches through PAM are refused")
	}
	return doctor.Check{}, false
}

func home(name string, a accounts.Account, notes *[]string) (doctor.Check, bool) {
	info, err := os.Stat(a.Home)
	switch {
	case errors.Is(err, fs.ErrPermission):
		*notes = append(*notes, "its home "+a.Home+" only it and root can see")
	case err != nil:
		return problem(name, "its home "+a.Home+" is not there: jobs that name no directory end with chdir.failed", "mkhomedir_helper "+a.Name+", or mount what belongs there"), true
	case !info.IsDir():
		return problem(name, "its home "+a.Home+" is not a directory", "usermod --home DIRECTORY "+a.Name), true
	}
	return doctor.Check{}, false
}

func shell(name string, a accounts.Account, notes *[]string) (doctor.Check, bool) {
	path := cmp.Or(a.Shell, "/bin/sh")
	info, err := os.Stat(path)
	switch base := filepath.Base(path); {
	case errors.Is(err, fs.ErrPermission):
		*notes = append(*notes, "its shell "+path+" this user cannot see")
	case err != nil:
		return problem(name, "its shell "+path+" is not there: command lines, logins and scripts without an interpreter fail", "usermod --shell /bin/sh "+a.Name), true
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return problem(name, "its shell "+path+" is no program", "usermod --shell /bin/sh "+a.Name), true
	case base == "nologin" || base == "false":
		*notes = append(*notes, "its shell is "+path+": commands run, command lines and logins do not")
	}
	return doctor.Check{}, false
}

// notReady says which batch users cannot be used, but for those that the service's findings tell of.
func notReady(users []wire.BatchUser) (list []string) {
	for _, u := range users {
		if u.State != "ready" && u.State != "rejected" && u.State != "ambiguous" {
			list = append(list, u.Name+" is "+u.State)
		}
	}
	return list
}
