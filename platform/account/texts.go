package account

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// texts remembers the lines of files as long as those do not change. Its methods may be called from several
// goroutines; a nil one remembers nothing.
type texts struct {
	// settled is how long a file must not have changed to be remembered: two changes that follow one another at once
	// could leave it with the same times.
	settled time.Duration

	mu    sync.Mutex // guards files
	files map[string]text
}

// text is one state of a file, and nobody's to write.
type text struct {
	info  os.FileInfo
	lines [][]string
}

// read returns what the file says now: whether it still is the one that was read is asked each time.
func (t *texts) read(path string) (lines [][]string, err error) {
	if t != nil {
		now, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		t.mu.Lock()
		known, ok := t.files[path]
		t.mu.Unlock()
		if ok && same(known.info, now) {
			return known.lines, nil
		}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat() // before what is read: a change in between is seen the next time
	if err != nil {
		return nil, err
	}
	if lines, err = parse(file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if t != nil && time.Since(changedAt(info)) > t.settled {
		t.mu.Lock()
		t.files[path] = text{info, lines}
		t.mu.Unlock()
	}
	return lines, nil
}

// same reports whether nothing happened to a file between the two looks.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && changedAt(a).Equal(changedAt(b))
}
