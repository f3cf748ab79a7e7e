//go:build linux

// Package older takes from a program, for tests, what older kernels do not have.
package older

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Exec executes the program in this process's place. It and all that it starts have a kernel that knows neither
// memfd_secret, as before Linux 5.14, nor SO_PEERPIDFD, as before 6.5. For root only. It returns only with an error.
func Exec(argv, env []string) error {
	if len(argv) == 0 {
		return unix.EINVAL
	}
	runtime.LockOSThread() // the filter is the thread's, and goes with it into the program
	filter := filter()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	runtime.KeepAlive(filter)
	return fmt.Errorf("%s: %w", argv[0], unix.Exec(argv[0], argv, env))
}

// filter is a program for struct seccomp_data: the number is at 0, and an argument's eight octets at 16 and on.
func filter() []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	// When it is not that value, so many are left out.
	is := func(value uint32, otherwise uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: otherwise}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	var low uint32 // where an argument's lower half is
	if one := uint32(1); *(*byte)(unsafe.Pointer(&one)) == 0 {
		low = 4
	}
	return []unix.SockFilter{
		load(0),
		is(unix.SYS_MEMFD_SECRET, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)),
		is(unix.SYS_GETSOCKOPT, 5),
		load(16 + 1*8 + low),
		is(unix.SOL_SOCKET, 3),
		load(16 + 2*8 + low),
		is(unix.SO_PEERPIDFD, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOPROTOOPT)),
		answer(unix.SECCOMP_RET_ALLOW),
	}
}
