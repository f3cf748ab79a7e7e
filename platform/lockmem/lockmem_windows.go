package lockmem

import (
	"crypto/rand"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

func allocate(size int) (region, error) {
	return allocateLocked(size, errors.New("there is no memfd_secret on Windows"))
}

func virtualAlloc(size int) ([]byte, func() error, error) {
	p, err := windows.VirtualAlloc(0, uintptr(size), windows.MEM_COMMIT|windows.MEM_RESERVE, windows.PAGE_READWRITE)
	if err != nil {
		return nil, nil, fmt.Errorf("VirtualAlloc: %w", err)
	}
	// The address is not the collector's, so it stays valid as a pointer.
	mem := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&p))), size)
	return mem, func() error { return windows.VirtualFree(p, 0, windows.MEM_RELEASE) }, nil
}

func locks(size int) error {
	mem, free, err := virtualAlloc(size)
	if err != nil {
		return err
	}
	err = windows.VirtualLock(uintptr(unsafe.Pointer(unsafe.SliceData(mem))), uintptr(size))
	return errors.Join(err, free())
}

func allocateUnlocked(size int) (region, error) {
	mem, free, err := virtualAlloc(size)
	if err != nil {
		return region{}, err
	}
	return region{mem: mem, backend: Unlocked, release: func() error {
		clear(mem)
		return free()
	}}, nil
}

func limit() string { return "the working set is too small" }

// random relies on crypto/rand reading straight into out, which it does on Windows.
func random(out []byte) error {
	_, err := rand.Read(out)
	return err
}

func harden() error {
	return fmt.Errorf("keeping the process from being dumped is not there yet on this system: %w", errors.ErrUnsupported)
}

func hardened() error { return harden() }
