package sealed

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"batchwarden/platform/lockmem"
)

// TestConcurrentUse has meaning under the race detector too.
func TestConcurrentUse(t *testing.T) {
	a := newArena(t)
	s := openIn(t, filepath.Join(t.TempDir(), "vault"), newKey(t, a, "id", 1), a)
	mustSeal(t, s, Change{}, user("pay", 1))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				held, err := s.Entries(bg)
				if err == nil {
					err = a.Borrow(bg, func(b *lockmem.Buffer) error { return s.OpenSecret(held[0], b) })
				}
				if err != nil && !errors.Is(err, ErrClosed) {
					t.Error(err)
					return
				}
			}
		})
	}
	for v := range int64(200) {
		mustSeal(t, s, Change{State: fmt.Appendf(nil, `{"n":%d}`, v)}, user("pay", v+2))
	}
	closing(t, s) // while they go on
	close(stop)
	wg.Wait()
}
