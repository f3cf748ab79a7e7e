//go:build !linux

package lockmem

// signals is for systems that interrupt threads with signals and leave their registers behind.
type signals struct{}

func (*signals) unsignalled(f func() error) error {
	defer overwriteRegisters()
	return f()
}
