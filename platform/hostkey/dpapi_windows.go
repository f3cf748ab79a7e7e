package hostkey

import (
	"errors"
	"fmt"
	"unsafe"

	"batchwarden/platform/lockmem"

	"golang.org/x/sys/windows"
)

// The machine's own key protects, so that whoever installs can make a key for the account of the
// service. What keeps other accounts of the machine off is the file; the entropy only keeps a key of
// ours apart from what other programs protect.
const dpapiFlags = windows.CRYPTPROTECT_LOCAL_MACHINE | windows.CRYPTPROTECT_UI_FORBIDDEN

func haveDPAPI() error { return nil }

func entropy() *windows.DataBlob {
	text := []byte("batchwarden host key 1")
	return &windows.DataBlob{Size: uint32(len(text)), Data: unsafe.SliceData(text)}
}

// protect lets the system read the key from where it lies.
func protect(kek, _ *lockmem.Buffer) (box []byte, err error) {
	in := windows.DataBlob{Size: Size, Data: &kek.Key()[0]}
	var out windows.DataBlob
	if err := windows.CryptProtectData(&in, nil, entropy(), 0, nil, dpapiFlags, &out); err != nil {
		return nil, fmt.Errorf("CryptProtectData: %w", err)
	}
	box = append(box, unsafe.Slice(out.Data, out.Size)...)
	return box, free(&out)
}

// unprotect wipes what the system made before it gives that back.
func unprotect(box []byte, kek *lockmem.Buffer) error {
	if len(box) == 0 {
		return errors.New("the file is empty")
	}
	in := windows.DataBlob{Size: uint32(len(box)), Data: unsafe.SliceData(box)}
	var out windows.DataBlob
	if err := windows.CryptUnprotectData(&in, nil, entropy(), 0, nil, dpapiFlags, &out); err != nil {
		return fmt.Errorf("%w, or it is damaged: CryptUnprotectData: %w", ErrForeign, err)
	}
	text := unsafe.Slice(out.Data, out.Size)
	n := copy(kek.Bytes(), text)
	size := len(text)
	clear(text)
	if err := free(&out); err != nil {
		return err
	}
	if n != Size || size != Size {
		return fmt.Errorf("%d octets, a key has %d", size, Size)
	}
	return nil
}

func free(b *windows.DataBlob) error {
	if _, err := windows.LocalFree(windows.Handle(unsafe.Pointer(b.Data))); err != nil {
		return fmt.Errorf("LocalFree: %w", err)
	}
	return nil
}
