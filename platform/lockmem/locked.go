//go:build linux || windows

package lockmem

import (
	"fmt"

	"github.com/awnumar/memguard"
)

// allocateLocked is for where there is no memfd_secret, for the given reason. One memguard buffer is
// the whole region. memguard waits for ever when it cannot lock, so that is tried first.
func allocateLocked(size int, why error) (region, error) {
	if err := locks(size); err != nil {
		r, err2 := allocateUnlocked(size)
		r.degraded = fmt.Sprintf("%d KiB of memory for secrets cannot be locked and may reach swap: %s, locking: %v, %v",
			size>>10, limit(), err, why)
		return r, err2
	}
	b := memguard.NewBuffer(size)
	if b.Size() != size {
		return region{}, fmt.Errorf("memguard gave %d octets of %d", b.Size(), size)
	}
	return region{mem: b.Bytes(), backend: Memguard, release: func() error {
		b.Destroy()
		return nil
	}}, nil
}
