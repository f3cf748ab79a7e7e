package lockmem

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// signalStack is the kernel's stack_t: where the thread's signal handlers run.
type signalStack struct {
	begin unsafe.Pointer
	flags int32
	size  uintptr
}

// disabled is its flag for a thread without one (SS_DISABLE).
const disabled = 2

// onCleanedThread calls f and removes what the thread keeps of it. The kernel writes the registers of an interrupted
// thread, with what was just copied or deciphered in them, to its signal stack, where it stays; and the runtime interrupts
// whoever runs for long whenever the collector wants to begin. So f stays on one thread, whose registers are overwritten
// and whose signal stack is wiped after it. To block signals meanwhile would cost two calls of the kernel instead of one.
func onCleanedThread(f func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() {
		overwriteRegisters()
		if failed := wipeSignalStack(); failed != nil && err == nil {
			err = failed
		}
	}()
	return f()
}

// wipeSignalStack clears the signal stack of this thread. No handler is running on it, since the caller is running.
func wipeSignalStack() error {
	var s signalStack
	if _, _, e := syscall.RawSyscall(syscall.SYS_SIGALTSTACK, 0, uintptr(unsafe.Pointer(&s)), 0); e != 0 {
		return fmt.Errorf("lockmem: finding the signal stack: %w", e)
	}
	if s.flags&disabled != 0 || s.begin == nil {
		return errors.New("lockmem: the thread has no signal stack")
	}
	clear(unsafe.Slice((*byte)(s.begin), s.size))
	return nil
}
