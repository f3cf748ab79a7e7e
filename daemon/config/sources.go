package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// noSource are the mounts that no batch user's source may lie in.
var noSource = []string{"sys", "auth", "identity", "cubbyhole"}

// maxSource is the longest path of a source in octets.
const maxSource = 256

// sources checks prefixes of Vault paths. They are compared by components, so a
// slash at either end says nothing.
func (c *checker) sources(list []string, mount string) {
	for i, prefix := range list {
		at := fmt.Sprintf("sync.sources[%d]", i)
		parts := strings.Split(strings.Trim(prefix, "/"), "/")
		isReserved := func(r string) bool { return strings.EqualFold(r, parts[0]) }
		switch {
		case len(prefix) > maxSource:
			c.fault(at, "is longer than %d octets", maxSource)
		case slices.ContainsFunc(parts, func(p string) bool { return p == "" || p == "." || p == ".." }):
			c.fault(at, "%q has an empty component, or one of dots", prefix)
		case strings.ContainsAny(prefix, `?#%\*`), strings.ContainsFunc(prefix, func(r rune) bool { return !unicode.IsPrint(r) }):
			c.fault(at, "%q contains a character that a path in Vault cannot have; name a prefix, without wildcards", prefix)
		case slices.ContainsFunc(noSource, isReserved):
			c.fault(at, "%q lies in one of %s, where no source may lie", prefix, strings.Join(noSource, ", "))
		case beginsWith(parts, strings.Split(strings.Trim(mount, "/"), "/")):
			c.fault(at, "%q lies in vault.mount, where no source may lie", prefix)
		}
	}
}

// beginsWith reports whether the first components are those of prefix.
func beginsWith(parts, prefix []string) bool {
	return len(parts) >= len(prefix) && slices.Equal(parts[:len(prefix)], prefix)
}
