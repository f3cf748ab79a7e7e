// Package account looks up the accounts and groups of this machine in its own files; package nss asks its resolver.
package account

import (
	"errors"
	"fmt"
	"slices"
)

// Errors of look-ups. Every one but ErrMissing means that nobody knows: do not treat it as "does not exist".
var (
	// ErrMissing reports that the account or group does not exist, by the word of a resolver that could be asked.
	ErrMissing = errors.New("does not exist")
	// ErrSilent reports that what must be asked does not answer, or not in time.
	ErrSilent = errors.New("does not answer")
	// ErrChanged reports that an account is not what it was.
	ErrChanged = errors.New("is not what it was")
)

// Account is what the system says about a name at one moment.
type Account struct {
	Name     string
	UID, GID uint32
	Home     string
	Shell    string  // as it is written; empty means /bin/sh
	Groups   []Group // every group the account is in, the primary one first, each once
	// OwnGroup says that the primary group carries the account's name and lists nobody else: what it can write, only
	// the account can.
	OwnGroup bool
}

// Group is one group; Name is empty when the system knows the number only.
type Group struct {
	GID  uint32
	Name string
}

// GIDs returns the numbers of the account's groups in ascending order.
func (a Account) GIDs() []uint32 {
	ids := make([]uint32, 0, len(a.Groups))
	for _, g := range a.Groups {
		ids = append(ids, g.GID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// Equal reports whether both describe the same account: everything but the order and names of its groups.
func (a Account) Equal(b Account) bool {
	return a.Name == b.Name && a.UID == b.UID && a.GID == b.GID && a.Home == b.Home && a.Shell == b.Shell &&
		slices.Equal(a.GIDs(), b.GIDs())
}

// Resolver answers look-ups. Answers hold for the moment of the question only, and those of Lookup, ByUID and
// GroupByName may be that of a question asked a few seconds ago.
type Resolver interface {
	Lookup(name string) (Account, error)
	ByUID(uid uint32) (Account, error)
	GroupByName(name string) (Group, error)
	// Fresh is Lookup with nothing remembered.
	Fresh(name string) (Account, error)
}

// Confirm asks anew whether a is still what it was when it was looked up: call it right before acting as the account.
// The error is ErrChanged, ErrMissing, or that nobody knows.
func Confirm(r Resolver, a Account) error {
	now, err := r.Fresh(a.Name)
	if err != nil {
		return err
	}
	if !now.Equal(a) {
		return fmt.Errorf("account: %q %w", a.Name, ErrChanged)
	}
	return nil
}

// Lookup returns the account of that name from the system's own files.
func Lookup(name string) (Account, error) { return System().Lookup(name) }

// ByUID returns the first account with that number from the system's own files.
func ByUID(uid uint32) (Account, error) { return System().ByUID(uid) }

// GroupByName returns the group of that name from the system's own files.
func GroupByName(name string) (Group, error) { return System().GroupByName(name) }

// System is the resolver that the functions of this package ask.
func System() Resolver { return shared }

// shared is one for all, which remembers what it read.
var shared = system()
