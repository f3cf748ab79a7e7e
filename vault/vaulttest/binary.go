package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// BinaryEnv names the variable that may say where devserver is.
const BinaryEnv = "BATCHWARDEN_DEVSERVER"

// Binary returns the path of devserver: what BinaryEnv names, else
// build/tools/devserver of this repository, which is built when it is missing
// or older than its source. However many processes ask, one builds.
func Binary(ctx context.Context) (string, error) {
	if bin := os.Getenv(BinaryEnv); bin != "" {
		return bin, nil
	}
	root, err := repository()
	if err != nil {
		return "", fmt.Errorf("vaulttest: %w (or set %s)", err, BinaryEnv)
	}
	bin := filepath.Join(root, "build", "tools", "devserver")
	source := filepath.Join(root, "vault", "devserver")
	if fresh(bin, source) {
		return bin, nil
	}
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, bin+".lock")
	if err != nil {
		return "", fmt.Errorf("vaulttest: %w", err)
	}
	defer unlock()
	if fresh(bin, source) {
		return bin, nil
	}
	next := bin + ".new"
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", next, ".")
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOOS=", "GOARCH=")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("vaulttest: build devserver: %w\n%s", err, out)
	}
	return bin, os.Rename(next, bin)
}

// fresh reports whether bin is there and no file of source is younger.
func fresh(bin, source string) bool {
	built, err := os.Stat(bin)
	if err != nil {
		return false
	}
	young := errors.New("younger")
	err = filepath.WalkDir(source, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(d.Name(), "_test.go") {
			return err
		}
		if fi, err := d.Info(); err != nil || fi.ModTime().After(built.ModTime()) {
			return errors.Join(young, err)
		}
		return nil
	})
	return err == nil
}

// repository returns the directory of this module, above the working directory.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if line, _, _ := strings.Cut(string(b), "\n"); err == nil && strings.TrimSpace(line) == "module batchwarden" {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("not inside the repository")
		}
		dir = up
	}
}

const (
	lockBeat = time.Second
	lockDead = 15 * time.Second
)

// lock makes file and keeps it young until unlock. A file that nobody keeps
// young any more is of a process that was killed.
func lock(ctx context.Context, file string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err == nil {
			return keepLock(file, f), nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if fi, err := os.Stat(file); err == nil && time.Since(fi.ModTime()) > lockDead {
			_ = os.Remove(file) // another waiter may have done so
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockBeat / 4):
		}
	}
}

func keepLock(file string, f *os.File) (unlock func()) {
	_ = f.Close() // nothing was written
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // ends with unlock
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case now := <-time.After(lockBeat):
				_ = os.Chtimes(file, now, now) // at worst somebody builds it twice
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		_ = os.Remove(file) // at worst the next one waits a little
	}
}
