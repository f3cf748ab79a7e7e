// Package nss looks up accounts as this machine's own resolver does (nsswitch.conf: local files, SSSD, LDAP and others),
// though our programs have no C library.
//
// There are two ways, with the same answers:
//
//   - From /etc/passwd and /etc/group, where that is provably what the resolver would say: see local.
//   - Else by batchwarden-nss, a program of ours in C (helper/), which asks the C library, and then each source by
//     itself whether it did answer. It stays for a minute, for the next question; one that takes too long is killed.
//
// Errors are those of package account: ErrMissing only when every source that matters was asked and does not know the
// name, ErrSilent when one did not answer. The C library alone would say "missing", or leave groups out, when a source
// is down; who decides by groups must know.
package nss

import (
	"time"

	"batchwarden/platform/account"
)

const (
	// Timeout is how long a look-up may take.
	Timeout = 5 * time.Second
	// Remembered is how long it is remembered what another source than the files has found, as long as they do not
	// change, and that systemd has nothing to add. Fresh asks anew. What the files say of an account is never older than
	// the question.
	Remembered = 2 * time.Second
	// Moment is how old it may be what they say of a group's name: a list of those is one question.
	Moment = 10 * time.Millisecond
)

// Resolver is the system's own resolver. Its methods may be called at the same time.
type Resolver struct{ r *resolver }

var _ account.Resolver = (*Resolver)(nil)

// New makes a resolver that asks the program at the path where the files do not suffice. Nothing is started yet.
func New(program string) *Resolver { return &Resolver{newResolver(program)} }

// Lookup implements account.Resolver. The account's name is the resolver's own, which may be longer than the one asked
// for (alice@example.com), or differ in case.
func (r *Resolver) Lookup(name string) (account.Account, error) { return r.r.Lookup(name) }

// Fresh implements account.Resolver.
func (r *Resolver) Fresh(name string) (account.Account, error) { return r.r.Fresh(name) }

// ByUID implements account.Resolver.
func (r *Resolver) ByUID(uid uint32) (account.Account, error) { return r.r.ByUID(uid) }

// GroupByName implements account.Resolver.
func (r *Resolver) GroupByName(name string) (account.Group, error) { return r.r.GroupByName(name) }

// Close ends what was started, and what is being asked with ErrSilent.
func (r *Resolver) Close() error { return r.r.close() }
