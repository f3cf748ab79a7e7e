package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"batchwarden/platform/safefile"
)

// Where everything is put, the same as by the packages.
const (
	programDir  = "/usr/lib/batchwarden"
	commandFile = "/usr/bin/batchwarden"
	unitDir     = "/etc/systemd/system"
	// manifestFile lists what setup has put on this machine, as sha256sum(1) writes it: only that is replaced and
	// removed again without --force.
	manifestFile = configDir + "/setup.sha256"
)

// packageUnitDirs are where packages put units.
var packageUnitDirs = []string{"/usr/lib/systemd/system", "/lib/systemd/system"}

// file is one that setup puts on the machine.
type file struct {
	path string
	text []byte
	sum  string // of text
	mode fs.FileMode
}

func newFile(path string, text []byte, mode fs.FileMode) file {
	return file{path, text, sumOf(text), mode}
}

// manifest has for each path the sums of what setup put there: one, or while an upgrade is under way two.
type manifest map[string][]string

func readManifest() (manifest, error) {
	text, err := safefile.Read(manifestFile, 1<<20, safefile.Rules{})
	if errors.Is(err, fs.ErrNotExist) {
		return manifest{}, nil
	}
	if err != nil {
		return nil, err
	}
	m := manifest{}
	for line := range strings.Lines(string(text)) {
		if sum, path, ok := strings.Cut(strings.TrimRight(line, "\n"), "  "); ok {
			m[path] = append(m[path], sum)
		}
	}
	return m, nil
}

func (m manifest) write() error {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(m)) {
		for _, sum := range m[path] {
			fmt.Fprintf(&b, "%s  %s\n", sum, path)
		}
	}
	return safefile.WriteAtomic(manifestFile, []byte(b.String()), 0o644)
}

// unfinished reports whether an earlier run did not come to its end.
func (m manifest) unfinished() bool {
	for _, sums := range m {
		if len(sums) > 1 {
			return true
		}
	}
	return false
}

// ours reports whether setup put there what has that sum.
func (m manifest) ours(path, sum string) bool { return slices.Contains(m[path], sum) }

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// condition of a file that setup would put somewhere.
type placeState int

const (
	placeMissing placeState = iota
	placeSame               // it is there already
	placeOurs               // an earlier one of ours, or half of this one
	placeForeign            // somebody else's, or ours that somebody has changed
)

// look says what lies at the file's path.
func (f file) look(m manifest) (placeState, error) {
	info, err := os.Lstat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return placeMissing, nil
	}
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return placeForeign, nil
	}
	text, err := os.ReadFile(f.path)
	switch {
	case err != nil:
		return 0, err
	case bytes.Equal(text, f.text) && info.Mode().Perm() == f.mode:
		return placeSame, nil
	case bytes.HasPrefix(f.text, text), m.ours(f.path, sumOf(text)):
		return placeOurs, nil
	}
	return placeForeign, nil
}

// writable tells whether a file can be made in the directory, or in the nearest above it that is there.
func writable(dir string) error {
	for {
		f, err := os.CreateTemp(dir, ".batchwarden-setup-*")
		if errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return fmt.Errorf("nothing can be written into %s: %w", dir, inner(err))
		}
		return errors.Join(f.Close(), os.Remove(f.Name()))
	}
}

// inner is what the system said, without the path.
func inner(err error) error {
	if p, is := errors.AsType[*fs.PathError](err); is {
		return p.Err
	}
	return err
}

// programs are the ones that run as services or are started by them.
var programs = []string{"batchwardend", "batchwarden-launcher", "batchwarden-sync", "batchwarden-become", "batchwarden-nss", "batchwarden-pam"}

// programFiles are the programs that lie beside this one, for where they belong.
func programFiles() (files []file, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return nil, err
	}
	from := filepath.Dir(self)
	if self == commandFile { // it runs where it belongs; so do the others
		from = programDir
	}
	add := func(source, to string) error {
		text, err := os.ReadFile(source)
		if err != nil {
			return fmt.Errorf("%s is not whole: %w; unpack or build it again", from, err)
		}
		files = append(files, newFile(to, text, 0o755))
		return nil
	}
	err = add(self, commandFile)
	for _, name := range programs {
		err = errors.Join(err, add(filepath.Join(from, name), filepath.Join(programDir, name)))
	}
	return files, err
}
