package keeper

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch/become"
)

// maxHashed bounds the files whose content is asked for.
const maxHashed = 1 << 30

// file is the command of a launch, looked for on the first question. It implements Command.
type file struct {
	name, dir, path string

	done bool
	err  error
	at   *os.File // O_PATH: what the answers are about
	real string
	pin  *become.Pin

	unseen error  // where one of the places could not be looked at
	unfit  string // a file of that name that cannot be executed
}

func (f *file) close() {
	if f.at != nil {
		_ = f.at.Close() // O_PATH
		f.at = nil
	}
}

// pathOf is the job's PATH.
func pathOf(env []string) string {
	for _, e := range env {
		if p, ok := strings.CutPrefix(e, "PATH="); ok {
			return p
		}
	}
	return ""
}

// Path implements Command.
func (f *file) Path() (string, error) {
	if !f.done {
		f.done = true
		f.err = f.find()
	}
	return f.real, f.err
}

// find opens the file, without its content, and asks the kernel for the name of what was opened: a name that is
// looked up twice can be two files.
func (f *file) find() error {
	candidates := []string{f.name}
	if !strings.Contains(f.name, "/") {
		candidates = nil
		for _, dir := range strings.Split(f.path, ":") {
			if strings.HasPrefix(dir, "/") {
				candidates = append(candidates, filepath.Join(dir, f.name))
			}
		}
	}
	for _, c := range candidates {
		if !filepath.IsAbs(c) {
			c = f.dir + "/" + c
		}
		fd, err := unix.Open(c, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			if f.unseen == nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
				f.unseen = &os.PathError{Op: "open", Path: c, Err: err}
			}
			continue
		}
		at := os.NewFile(uintptr(fd), c)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			f.at = at
			return f.hold(fd, &st)
		}
		f.unfit = c
		_ = at.Close() // O_PATH
	}
	return fmt.Errorf("no command %q is found", f.name)
}

func (f *file) hold(fd int, st *unix.Stat_t) error {
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	if st.Nlink == 0 || !filepath.IsAbs(real) {
		return fmt.Errorf("the command %q has no name any more", f.name)
	}
	f.real, f.pin = real, become.PinOf(st)
	return nil
}

// SHA256 implements Command.
func (f *file) SHA256() (string, error) {
	if _, err := f.Path(); err != nil {
		return "", err
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(int(f.at.Fd())), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: f.real, Err: err}
	}
	content := os.NewFile(uintptr(fd), f.real)
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(content, maxHashed+1))
	if err := errors.Join(err, content.Close()); err != nil {
		return "", err
	}
	if n > maxHashed {
		return "", fmt.Errorf("%q is larger than %d octets", f.real, maxHashed)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
