//go:build !linux

package kernel

import (
	"errors"
	"fmt"
)

var errUnsupported = fmt.Errorf("kernel: this platform has no such thing: %w", errors.ErrUnsupported)

func abilities() []Ability {
	all := []Ability{}
	for _, name := range []string{MemfdSecret, PeerPidfd, Pidfd, Landlock, Cgroup2, MadvPopulate} {
		all = append(all, Ability{name, errUnsupported})
	}
	return all
}
