package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
)

const (
	outputDir = "jobs"
	// punchEvery is how often streams are held against their limit: what a job can write in this time is the most
	// that it can exceed it by.
	punchEvery = 200 * time.Millisecond
	holeUnit   = 4096
)

// output is what one job writes, in files that are opened before it exists: nobody has to read along, and nobody's
// end reaches the job.
type output struct {
	dir string

	mu      sync.Mutex // guards what the streams know: housekeeping and the job's end both trim
	streams [2]*stream
}

// stream is one file. The job owns it, so that /dev/stdout can be opened; only the launcher can reach its name.
type stream struct {
	file   *os.File
	max    int64 // octets that stay: the first half and the last
	punch  int64 // up to here the middle is gone
	failed bool  // the file system cannot make holes
}

func outputPath(stateDir string, serial uint64) string {
	return filepath.Join(stateDir, outputDir, strconv.FormatUint(serial, 10))
}

func makeOutput(stateDir string, serial uint64, limit int64, uid, gid uint32) (*output, error) {
	o := &output{dir: outputPath(stateDir, serial)}
	if err := os.MkdirAll(filepath.Dir(o.dir), 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(o.dir, 0o700); err != nil {
		return nil, err
	}
	for i, name := range []string{launch.Stdout, launch.Stderr} {
		f, err := os.OpenFile(filepath.Join(o.dir, name), os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err == nil {
			o.streams[i] = &stream{file: f, max: limit}
			if os.Geteuid() == 0 {
				err = f.Chown(int(uid), int(gid))
			}
		}
		if err != nil {
			o.close()
			return nil, errors.Join(err, o.remove())
		}
	}
	return o, nil
}

// reopenOutput opens the streams of a job that was begun by an earlier launcher; nil when they are not captured.
func reopenOutput(stateDir string, serial uint64, limit int64) (*output, error) {
	o := &output{dir: outputPath(stateDir, serial)}
	for i, name := range []string{launch.Stdout, launch.Stderr} {
		f, err := os.OpenFile(filepath.Join(o.dir, name), os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			o.close()
			return nil, err
		}
		o.streams[i] = &stream{file: f, max: limit}
	}
	return o, nil
}

// trim holds both streams against their limit; output that is not captured needs nothing.
func (o *output) trim() error {
	if o == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var err error
	for _, s := range o.streams {
		err = errors.Join(err, s.trim())
	}
	return err
}

// trim gives the middle of a stream back to the file system. Offsets stay as they are: the file gets a hole.
func (s *stream) trim() error {
	if s == nil || s.failed || s.max <= 0 {
		return nil
	}
	var st unix.Stat_t
	err := control(s.file, func(fd int) error { return unix.Fstat(fd, &st) })
	if err != nil || st.Size <= s.max {
		return err
	}
	if st.Size < s.punch { // the job truncated its own file
		s.punch = 0
	}
	head := (s.max/2 + holeUnit - 1) / holeUnit * holeUnit
	tail := (st.Size - (s.max - s.max/2)) / holeUnit * holeUnit
	from := max(head, s.punch)
	if tail <= from {
		return nil
	}
	err = control(s.file, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, tail-from)
	})
	if err != nil {
		s.failed = true
		return fmt.Errorf("captured output cannot be bounded: %w", err)
	}
	s.punch = tail
	return nil
}

func control(f *os.File, do func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	outer := rc.Control(func(fd uintptr) { inner = do(int(fd)) })
	return errors.Join(outer, inner)
}

func (o *output) close() {
	if o == nil {
		return
	}
	for _, s := range o.streams {
		if s != nil {
			_ = s.file.Close() // nothing was written through it
		}
	}
}

func (o *output) remove() error {
	if o == nil {
		return nil
	}
	return os.RemoveAll(o.dir)
}

// openOutput opens one stream of a job for reading.
func openOutput(stateDir string, serial uint64, name string) (*os.File, error) {
	if name != launch.Stdout && name != launch.Stderr {
		return nil, &launch.Refused{Code: launch.CodeInvalid, Reason: fmt.Sprintf("there is no stream %q", name)}
	}
	// Not blocking: its owner, the job's user, could hold a lease on the file.
	f, err := os.OpenFile(filepath.Join(outputPath(stateDir, serial), name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &launch.Refused{Code: launch.CodeUnknown, Reason: "the job's output was not captured, or is gone"}
	}
	return f, err
}
