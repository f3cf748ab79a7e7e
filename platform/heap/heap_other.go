//go:build !linux

package heap

func fill([]byte) {}

// ForgetProgram does nothing here.
func ForgetProgram() error { return nil }
