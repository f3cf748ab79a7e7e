//go:build linux || windows

package lockmem

import (
	"errors"
	"fmt"
	"time"

	"github.com/awnumar/memguard"
)

// memguardTime is how long memguard may take for the one buffer that it is asked for.
const memguardTime = 5 * time.Second

// allocateLocked is for where there is no memfd_secret, for the given reason. One memguard buffer is
// the whole region. memguard waits for ever when it cannot lock, so that is tried first; and because
// what could be locked a moment ago may be too much now, nobody waits for it longer than a while.
func allocateLocked(size int, why error) (region, error) {
	err := locks(size)
	if err == nil {
		r, guardErr := within(memguardTime, func() (region, error) { return guarded(size) })
		if guardErr == nil {
			return r, nil
		}
		err = guardErr
	}
	r, err2 := allocateUnlocked(size)
	r.degraded = fmt.Sprintf("%d KiB of memory for secrets cannot be locked and may reach swap: %s, locking: %v, %v",
		size>>10, limit(), err, why)
	return r, err2
}

// within runs f, which may panic or not return at all; then what it holds is lost, and it is not asked
// a second time.
func within(most time.Duration, f func() (region, error)) (region, error) {
	type outcome struct {
		region region
		err    error
	}
	done := make(chan outcome, 1)
	go func() { // ends with f
		var o outcome
		defer func() {
			if p := recover(); p != nil {
				o.err = fmt.Errorf("memguard: %v", p)
			}
			done <- o
		}()
		o.region, o.err = f()
	}()
	late := time.NewTimer(most)
	defer late.Stop()
	select {
	case o := <-done:
		return o.region, o.err
	case <-late.C:
		return region{}, errors.New("memguard does not return")
	}
}

// guarded is one memguard buffer.
func guarded(size int) (region, error) {
	b := memguard.NewBuffer(size)
	if b.Size() != size {
		return region{}, fmt.Errorf("memguard gave %d octets of %d", b.Size(), size)
	}
	return region{mem: b.Bytes(), backend: Memguard, release: func() error {
		b.Destroy()
		return nil
	}}, nil
}
