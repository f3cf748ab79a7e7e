package sealed

import (
	"bytes"
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
	mustSeal(t, s, Change{}, user("tax", 1)) // in a batch of its own
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
				for i := 0; i < len(held) && err == nil; i++ {
					err = a.Borrow(bg, func(b *lockmem.Buffer) error {
						if err := s.OpenSecret(held[i], b); err != nil {
							return err
						}
						if !bytes.Equal(b.Bytes(), password(&held[i].Entry)) {
							t.Errorf("%s has another password", held[i].ID)
						}
						return nil
					})
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
