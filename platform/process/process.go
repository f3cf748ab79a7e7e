// Package process finds running programs by their name, and says what the system tells anybody about them.
package process

import "fmt"

// Process is one running program at the moment of the question.
type Process struct {
	PID  int
	UID  uint32   // effective
	Args []string // with the name it was started by; nil where they are not told
	// Exe is the program's file, "" where only root is told. Replaced says that another file, or none, has its name now.
	Exe      string
	Replaced bool
	// MemLock is how many octets it may lock into memory; Unlimited: any number.
	MemLock uint64
}

// Unlimited is a limit that is none.
const Unlimited = ^uint64(0)

// Find returns the processes whose program has that name. What ends meanwhile is left out. An error wraps
// errors.ErrUnsupported where the platform does not tell.
func Find(name string) ([]Process, error) {
	list, err := find(name)
	if err != nil {
		return nil, fmt.Errorf("process: %q: %w", name, err)
	}
	return list, nil
}
