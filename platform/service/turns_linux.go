package service

import (
	"os"

	"golang.org/x/sys/unix"
)

// TakeTurns has the thread of a locked goroutine run like work of no haste (SCHED_BATCH): when it wakes it does not push
// aside who is running.
func TakeTurns() error {
	err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH}, 0)
	return os.NewSyscallError("sched_setattr", err)
}
