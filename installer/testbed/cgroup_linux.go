package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const cgroupPrefix = "batchwarden-"

// cgroupMount returns where the unified hierarchy is mounted and may be
// written, or "".
func cgroupMount() string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		mount, kind, _ := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if len(fields) < 6 || !strings.HasPrefix(kind, "cgroup2 ") || strings.HasPrefix(fields[5], "ro") {
			continue
		}
		return fields[4]
	}
	return ""
}

// newCgroup makes a cgroup with the given children, as a service manager would
// make one per unit, and returns its directory; "" where there is no cgroup2.
func newCgroup(name string, children ...string) (string, error) {
	mount := cgroupMount()
	if mount == "" {
		return "", nil
	}
	dir := filepath.Join(mount, cgroupPrefix+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			return "", nil // mounted, but not ours to divide
		}
		return "", err
	}
	for _, child := range children {
		if err := os.Mkdir(filepath.Join(dir, child), 0o755); err != nil {
			return dir, err
		}
	}
	return dir, nil
}

// removeCgroup ends everything in the cgroup and removes it.
func removeCgroup(dir string) error {
	if dir == "" {
		return nil
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is gone
		}
		err = errors.Join(err, rmdirs(dir))
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
}

// rmdirs removes a tree of directories from below. The files in it are the
// kernel's.
func rmdirs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := rmdirs(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}

// removeCgroups removes what is named so; a sandbox's are left when it is killed.
func removeCgroups(prefix string) error {
	var errs []error
	for _, dir := range CgroupsLeft(prefix) {
		errs = append(errs, removeCgroup(dir))
	}
	return errors.Join(errs...)
}

// removeStaleCgroups removes the cgroups of processes that are dead. Only a
// process that sees all pids may ask.
func removeStaleCgroups() error {
	var errs []error
	for _, dir := range CgroupsLeft(cgroupPrefix) {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		if pid, err := strconv.Atoi(owner); err == nil {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, removeCgroup(dir))
			}
		}
	}
	return errors.Join(errs...)
}

// CgroupsLeft returns the cgroups whose names begin with the prefix.
func CgroupsLeft(prefix string) []string {
	mount := cgroupMount()
	if mount == "" {
		return nil
	}
	dirs, err := filepath.Glob(filepath.Join(mount, prefix+"*"))
	if err != nil {
		return []string{err.Error()}
	}
	return dirs
}
