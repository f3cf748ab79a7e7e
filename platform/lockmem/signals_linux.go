package lockmem

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// signals is what a slot remembers of the thread that uses it.
type signals struct{ before unix.Sigset_t }

// unsignalled calls f on a thread that no signal interrupts. The kernel writes the registers of an interrupted thread,
// with what was just copied or deciphered in them, to its signal stack, where it stays; and the runtime interrupts
// whoever runs for long whenever the collector wants to begin: then Go keeps the vector registers once more, in memory of
// its own that nobody else can find, so that wiping the signal stack afterwards would not do. The registers are
// overwritten before signals come again.
func (s *signals) unsignalled(f func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &maskable, &s.before); err != nil {
		return fmt.Errorf("lockmem: blocking signals: %w", err)
	}
	defer func() {
		overwriteRegisters()
		if undo := unix.PthreadSigmask(unix.SIG_SETMASK, &s.before, nil); undo != nil && err == nil {
			err = fmt.Errorf("lockmem: letting signals through again: %w", undo)
		}
	}()
	return f()
}

// maskable is every signal but those that a fault of the thread itself raises.
var maskable = func() (set unix.Sigset_t) {
	for i := range set.Val {
		set.Val[i] = ^set.Val[i]
	}
	for _, fault := range []syscall.Signal{unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS} {
		bits := 8 * int(unsafe.Sizeof(set.Val[0]))
		set.Val[(int(fault)-1)/bits] &^= 1 << ((int(fault) - 1) % bits)
	}
	return set
}()
