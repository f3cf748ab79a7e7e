package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"batchwarden/platform/safefile"
)

const witnessName = "witness"

// witness keeps the highest number that the daemon has told, so that somebody who puts the daemon's files back to an
// older state cannot put this back too.
type witness struct {
	path string

	mu      sync.Mutex // guards the next, and the file
	highest uint64
}

// openWitness reads what was told before. With an error it begins at 0.
func openWitness(dir string) (*witness, error) {
	w := &witness{path: filepath.Join(dir, witnessName)}
	text, err := safefile.Read(w.path, 32, safefile.Rules{Self: true, Mode: 0o600})
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, fmt.Errorf("keeper: witness: %w", err)
	}
	if w.highest, err = strconv.ParseUint(strings.TrimSuffix(string(text), "\n"), 10, 64); err != nil {
		w.highest = 0
		return w, fmt.Errorf("keeper: witness: %w", err)
	}
	return w, nil
}

// tell returns the highest number so far, this one included; with settle it is this one.
func (w *witness) tell(number uint64, settle bool) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if number > w.highest || settle && number != w.highest {
		if err := w.write(number); err != nil {
			return 0, fmt.Errorf("keeper: witness: %w", err)
		}
		w.highest = number
	}
	return w.highest, nil
}

// write replaces the file, with a single fsync: should the machine fail before the directory reaches the disk, an
// older number is there, which is a witness still.
func (w *witness) write(number uint64) (err error) {
	f, err := os.OpenFile(w.path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is the one to tell
		}
	}()
	_, err = fmt.Fprintln(f, number)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), w.path)
}
