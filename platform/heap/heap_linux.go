package heap

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugePage is what one entry of the processor's page table can stand for, in octets.
const hugePage = 2 << 20

// fill gives room its memory, in huge pages as far as it holds whole ones: under a hypervisor each page of 4 KiB costs
// an interruption of the guest or of the host, and a huge page costs one. What is not in one yet never becomes one later,
// when Go has given most of it back: the system would fill it up again, and count that as ours.
//
// Every error is of an older kernel, or one without huge pages, and then nothing is lost.
func fill(room []byte) {
	if len(room) == 0 {
		return
	}
	begin := -uintptr(unsafe.Pointer(unsafe.SliceData(room))) % hugePage // of the first whole one
	if length := uintptr(len(room)); length >= begin+hugePage {
		whole := room[begin : length-(length-begin)%hugePage]
		_ = unix.Madvise(whole, unix.MADV_HUGEPAGE)
		defer func() { _ = unix.Madvise(whole, unix.MADV_NOHUGEPAGE) }()
	}
	_ = unix.Madvise(room, unix.MADV_POPULATE_WRITE)
}
