package keeper

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of times in /proc.
const clockTick = time.Second / 100

// process is what /proc/PID/stat says.
type process struct {
	pid, parent, session int
	state                byte          // of its first thread: 'Z' also while others of its threads run
	born                 time.Duration // boot time, rounded down
	cpu                  time.Duration
	status               syscall.WaitStatus // of a process that has ended
}

func (p process) dead() bool { return p.state == 'Z' || p.state == 'X' }

func processOf(pid int) (p process, ok bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return p, false
	}
	// The name in brackets may contain anything, brackets too. The numbers behind it begin with the third field.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 50 {
		return p, false
	}
	number := func(field int) int {
		n, err := strconv.Atoi(string(fields[field-3]))
		ok = ok && err == nil
		return n
	}
	ok = true
	return process{
		pid: pid, state: fields[0][0], parent: number(4), session: number(6), born: time.Duration(number(22)) * clockTick,
		cpu: time.Duration(number(14)+number(15)) * clockTick, status: syscall.WaitStatus(number(52)),
	}, ok
}

// processes lists all there are.
func processes() (list []process) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if p, ok := processOf(pid); ok {
				list = append(list, p)
			}
		}
	}
	return list
}

// uidOf is the real uid of a process.
func uidOf(pid int) (uint32, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, false
	}
	_, after, _ := strings.Cut(string(text), "\nUid:\t")
	first, _, _ := strings.Cut(after, "\t")
	uid, err := strconv.ParseUint(first, 10, 32)
	return uint32(uid), err == nil
}

// ignoredSignals are those that this process ignores, of signal n bit n-1; all that can be where nobody tells.
func ignoredSignals() uint64 {
	text, err := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(text), "\nSigIgn:\t")
	mask, _, _ := strings.Cut(after, "\n")
	ignored, parseErr := strconv.ParseUint(mask, 16, 64)
	if err != nil || parseErr != nil {
		return ^uint64(1<<(unix.SIGKILL-1) | 1<<(unix.SIGSTOP-1))
	}
	return ignored
}

// auditSession is the number that the kernel gave the process, and all that come of it, when its login uid was set.
// Only root can leave it. 0: it has none.
func auditSession(pid int) uint32 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/sessionid")
	if err != nil {
		return 0 // a kernel without
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil || uint32(n) == ^uint32(0) {
		return 0
	}
	return uint32(n)
}

// inCgroup reports whether the process is in the cgroup or one inside it. One that has ended and was not waited for
// still is.
func inCgroup(pid int, box string) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return false
	}
	_, path, _ := strings.Cut("\n"+string(text), "\n0::")
	path, _, _ = strings.Cut(path, "\n")
	// Where the hierarchy is mounted, and from which of its directories on, has no part in it: these names are ours.
	return strings.Contains(strings.TrimSuffix(path, " (deleted)")+"/", tail(box)+"/")
}

// tail is the part of a box's path that no other box has.
func tail(box string) string {
	serial := strings.LastIndexByte(box, '/')
	return box[strings.LastIndexByte(box[:max(serial, 0)], '/')+1:]
}

// exitBehind asks the kernel how the process ended that was once behind the pidfd. It knows when somebody has waited for it,
// from Linux 6.15 on.
func exitBehind(pidfd int) (syscall.WaitStatus, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return syscall.WaitStatus(info.Exit_code), true
}
