package become

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigaction is the kernel's own, not the C library's, for the architectures this is built for. The mask is the last
// member everywhere, and the handler the first.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

const (
	sigIgn    = 1
	lastSig   = 64
	maskOctet = 8 // the size of the kernel's signal set
)

// resetSignals lets the job begin with no signal blocked and none ignored, whatever the launcher was started with.
// Signals that the Go runtime handles become default ones by the exec; ignored ones and the mask would stay.
func resetSignals() error {
	for sig := uintptr(1); sig <= lastSig; sig++ {
		if sig == uintptr(unix.SIGKILL) || sig == uintptr(unix.SIGSTOP) {
			continue
		}
		var old, deflt sigaction
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&old)), maskOctet, 0, 0); errno != 0 {
			return fmt.Errorf("signal %d: %w", sig, errno)
		}
		if old.handler != sigIgn {
			continue
		}
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&deflt)), 0, maskOctet, 0, 0); errno != 0 {
			return fmt.Errorf("signal %d: %w", sig, errno)
		}
	}
	var none uint64
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, maskOctet, 0, 0); errno != 0 {
		return fmt.Errorf("mask: %w", errno)
	}
	return nil
}
