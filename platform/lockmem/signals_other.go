//go:build !linux

package lockmem

// onCleanedThread is for systems that interrupt threads with signals and leave their registers behind.
func onCleanedThread(f func() error) error {
	defer overwriteRegisters()
	return f()
}
