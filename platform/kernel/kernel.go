// Package kernel tells which of the newer abilities of an operating system's kernel are there, by trying each.
package kernel

// Names of abilities.
const (
	MemfdSecret  = "memfd_secret"  // memory that no other process and no other part of the kernel reads
	PeerPidfd    = "SO_PEERPIDFD"  // a socket's other end, as a handle of its process
	Pidfd        = "pidfd"         // a handle of a process, which its number is not
	Landlock     = "Landlock"      // a process gives up files for itself
	Cgroup2      = "cgroup v2"     // processes that are kept together
	MadvPopulate = "MADV_POPULATE" // memory made present ahead of its use
)

// Ability is one of them. Err says why it cannot be used; nil: it can.
type Ability struct {
	Name string
	Err  error
}

// Abilities tries all, in a fixed order. An error wraps errors.ErrUnsupported where the platform has no such thing.
func Abilities() []Ability { return abilities() }
