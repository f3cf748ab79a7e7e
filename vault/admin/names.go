package admin

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"batchwarden/vault/documents"
)

var (
	goodRole  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$`) // what AppRole takes
	goodMount = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)
)

// The three kinds of scope, as the first element of a document's path.
const (
	machineScope  = "machines"
	groupScope    = "groups"
	platformScope = "platforms"
)

// CheckName says what is wrong with the name of a batch user, realm, group or machine.
// What it lets through is a single element of a path, and no pattern to Vault.
func CheckName(name string) error {
	if !documents.GoodName(name) {
		return fmt.Errorf("%w: %q is no name: 1 to 61 of A-Z a-z 0-9 . _ -", ErrInvalid, name)
	}
	return nil
}

// CheckScope says what is wrong with a scope: "machines/NAME", "groups/NAME" or "platforms/unix|windows|zos".
func CheckScope(scope string) error {
	kind, name, _ := strings.Cut(scope, "/")
	switch kind {
	case machineScope, groupScope:
		return CheckName(name)
	case platformScope:
		return checkPlatform(name)
	}
	return fmt.Errorf("%w: %q is no scope: machines/NAME, groups/NAME or platforms/%s", ErrInvalid, scope, strings.Join(documents.Platforms, "|"))
}

func checkPlatform(name string) error {
	if !slices.Contains(documents.Platforms, name) {
		return fmt.Errorf("%w: %q is no platform: one of %s", ErrInvalid, name, strings.Join(documents.Platforms, ", "))
	}
	return nil
}

// checkMachine is CheckName for a name that AppRole takes as a role's, too.
func checkMachine(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if !goodRole.MatchString(name) {
		return fmt.Errorf("%w: %q: the name of a machine begins and ends with a letter, a digit or _", ErrInvalid, name)
	}
	return nil
}

func checkMount(mount string) error {
	if !goodMount.MatchString(mount) {
		return fmt.Errorf("%w: %q is no path of a mount", ErrInvalid, mount)
	}
	switch first, _, _ := strings.Cut(mount, "/"); first {
	case "sys", "auth", "identity", "cubbyhole":
		return fmt.Errorf("%w: %q is Vault's own", ErrInvalid, mount)
	}
	return nil
}
