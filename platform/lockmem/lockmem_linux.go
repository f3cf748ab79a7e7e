package lockmem

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func allocate(size int) (region, error) {
	r, secretErr := allocateSecret(size)
	if secretErr == nil {
		return r, nil
	}
	return allocateLocked(size, secretErr)
}

// allocateSecret maps memfd_secret(2) pages between two pages that nobody can touch.
func allocateSecret(size int) (region, error) {
	// O_CLOEXEC, not FD_CLOEXEC as the manual once said: that is EINVAL.
	n, _, errno := unix.Syscall(unix.SYS_MEMFD_SECRET, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return region{}, fmt.Errorf("memfd_secret: %w", errno)
	}
	fd := int(n)
	// The mapping keeps the pages; nothing can be lost by closing the descriptor.
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return region{}, fmt.Errorf("memfd_secret: ftruncate: %w", err)
	}
	guard := uintptr(os.Getpagesize())
	whole := uintptr(size) + 2*guard
	base, err := unix.MmapPtr(-1, 0, nil, whole, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return region{}, fmt.Errorf("mmap: %w", err)
	}
	inner, err := unix.MmapPtr(fd, 0, unsafe.Add(base, guard), uintptr(size),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		// The kernel may have made a hole of these addresses before it refused, and whoever mapped memory since,
		// as the Go runtime does at any moment, may have got them: they are no longer ours to unmap.
		return region{}, fmt.Errorf("memfd_secret: mmap: %w", err)
	}
	unmap := func() error { return unix.MunmapPtr(base, whole) }
	mem := unsafe.Slice((*byte)(inner), size)
	// A child must not share these pages. The kernel leaves them out of dumps by itself.
	if err := unix.Madvise(mem, unix.MADV_DONTFORK); err != nil {
		return region{}, errors.Join(fmt.Errorf("memfd_secret: madvise: %w", err), unmap())
	}
	// Have every page now: one that is missing later would be a SIGBUS. MADV_POPULATE_WRITE is
	// refused for these pages, so they are touched; clear is enough.
	clear(mem)
	return region{mem: mem, backend: MemfdSecret, release: func() error {
		clear(mem)
		return unmap()
	}}, nil
}

// locks says whether size octets can be locked now. It is tried, not computed: what counts against
// the limit, and who is exempt, is the kernel's business.
func locks(size int) error {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	err = unix.Mlock(mem)
	return errors.Join(err, unix.Munmap(mem))
}

func allocateUnlocked(size int) (region, error) {
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return region{}, fmt.Errorf("mmap: %w", err)
	}
	if err := errors.Join(unix.Madvise(mem, unix.MADV_DONTDUMP), unix.Madvise(mem, unix.MADV_DONTFORK)); err != nil {
		return region{}, errors.Join(fmt.Errorf("madvise: %w", err), unix.Munmap(mem))
	}
	return region{mem: mem, backend: Unlocked, release: func() error {
		clear(mem)
		return unix.Munmap(mem)
	}}, nil
}

// limit says what the limit on locked memory is.
func limit() string {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); err != nil {
		return "RLIMIT_MEMLOCK is not known"
	}
	return fmt.Sprintf("RLIMIT_MEMLOCK is %d KiB", l.Cur>>10)
}

func random(out []byte) error {
	for len(out) > 0 {
		n, err := unix.Getrandom(out, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		out = out[max(n, 0):]
	}
	return nil
}

func harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl PR_SET_DUMPABLE: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("setrlimit RLIMIT_CORE: %w", err)
	}
	return nil
}

func hardened() error {
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("prctl PR_GET_DUMPABLE: %w", err)
	}
	if dumpable != 0 {
		return fmt.Errorf("the process can be dumped and traced (PR_GET_DUMPABLE is %d)", dumpable)
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &l); err != nil {
		return fmt.Errorf("getrlimit RLIMIT_CORE: %w", err)
	}
	if l.Cur != 0 || l.Max != 0 {
		return fmt.Errorf("core dumps are on (RLIMIT_CORE is %d, at most %d)", l.Cur, l.Max)
	}
	return nil
}
