package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Programs are the ones that are installed.
var Programs = []string{"batchwardend", "batchwarden", "batchwarden-launcher", "batchwarden-become", "batchwarden-nss", "batchwarden-pam", "batchwarden-sync"}

// Top returns the directory of the module that the working directory lies in.
func Top() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(text, []byte("module batchwarden\n")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("testbed: not inside the source tree")
		}
	}
}

// freshen builds the programs when they are older than the sources, so that a
// test never judges those of yesterday. The sources are read in this process:
// go test repeats a test when files that it read have changed.
func freshen() (err error) {
	top, err := Top()
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(top, "build"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	newest, err := newestSource(top)
	if err != nil {
		return err
	}
	for _, name := range Programs {
		built, err := os.Stat(filepath.Join(top, "build", "bin", name))
		if err == nil && !built.ModTime().Before(newest) {
			continue
		}
		build := exec.Command("make", "--no-print-directory", "build")
		build.Dir = top
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("make build: %w\n%s", err, out)
		}
		return nil
	}
	return nil
}

func newestSource(top string) (newest time.Time, err error) {
	for _, root := range []string{"go.mod", "daemon", "vault", "platform", "ipc", "installer/linux"} {
		err := filepath.WalkDir(filepath.Join(top, root), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			name := d.Name()
			if d.IsDir() && (name == "testdata" || name == "devserver") {
				return fs.SkipDir
			}
			whole := filepath.Base(filepath.Dir(path)) == "child" || root == "installer/linux" // what is no Go is in the programs too
			if strings.HasSuffix(name, "_test.go") || !strings.HasSuffix(name, ".go") && name != "go.mod" && !whole {
				return nil
			}
			info, err := os.Stat(path)
			if err == nil && info.ModTime().After(newest) {
				newest = info.ModTime()
			}
			return err
		})
		if err != nil {
			return newest, err
		}
	}
	return newest, nil
}

// install copies the programs into dir, so that accounts which cannot enter
// the source tree can run them, and nothing changes under a running bed.
func install(dir string) (err error) {
	top, err := Top()
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(top, "build"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	for _, name := range Programs {
		if err := copyFile(filepath.Join(top, "build", "bin", name), filepath.Join(dir, name), 0o755); err != nil {
			return fmt.Errorf("testbed: no programs; run: make build: %w", err)
		}
	}
	return nil
}

// lock keeps other processes of ours from building into dir, or from reading
// there while we build.
func lock(dir string) (unlock func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return errors.Join(out.Chmod(mode), out.Close())
}
