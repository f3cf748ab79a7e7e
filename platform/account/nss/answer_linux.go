package nss

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"batchwarden/platform/account"
)

var errAnswer = errors.New("the answer cannot be understood")

// fields takes a message apart.
func fields(text []byte) ([]string, error) {
	if len(text) == 0 || text[len(text)-1] != 0 {
		return nil, errAnswer
	}
	return strings.Split(string(text[:len(text)-1]), "\x00"), nil
}

// message puts one together.
func message(fields ...string) []byte { return []byte(strings.Join(fields, "\x00") + "\x00") }

// verdict returns what follows "found", or the error that the answer is.
func verdict(f []string) ([]string, error) {
	switch {
	case f[0] == "found":
		return f[1:], nil
	case f[0] == "missing" && len(f) == 1:
		return nil, account.ErrMissing
	case f[0] == "silent" && len(f) >= 2:
		return nil, fmt.Errorf("%w: %q", account.ErrSilent, f[1])
	}
	return nil, errAnswer
}

func toAccount(f []string) (account.Account, error) {
	f, err := verdict(f)
	if err != nil {
		return account.Account{}, err
	}
	if len(f) < 8 || len(f)%2 != 0 {
		return account.Account{}, errAnswer
	}
	uid, ok := number(f[1])
	gid, ok2 := number(f[2])
	if f[0] == "" || !ok || !ok2 {
		return account.Account{}, fmt.Errorf("%w: name %q, uid %q, gid %q", errAnswer, f[0], f[1], f[2])
	}
	a := account.Account{Name: f[0], UID: uid, GID: gid, Home: f[3], Shell: f[4], OwnGroup: f[5] != ""}
	for at := 6; at < len(f); at += 2 {
		g, err := toGroup(f[at : at+2])
		if err != nil {
			return account.Account{}, err
		}
		a.Groups = append(a.Groups, g)
	}
	// The primary one first, whatever the order that the system gives.
	i := slices.IndexFunc(a.Groups, func(g account.Group) bool { return g.GID == gid })
	if i < 0 {
		return account.Account{}, errAnswer
	}
	a.Groups[0], a.Groups[i] = a.Groups[i], a.Groups[0]
	return a, nil
}

func toGroup(f []string) (account.Group, error) {
	gid, ok := number(f[0])
	if len(f) != 2 || !ok {
		return account.Group{}, errAnswer
	}
	return account.Group{GID: gid, Name: f[1]}, nil
}
