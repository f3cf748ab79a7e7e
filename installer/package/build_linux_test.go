package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"batchwarden/installer/testbed"
)

// made is what this run of the tests has built; build makes it.
var made struct {
	sync.Mutex
	dir  string // everything lies below it
	dirs map[string]string
}

func TestMain(m *testing.M) {
	code := testbed.Main(m)
	if made.dir != "" {
		if err := os.RemoveAll(made.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// without skips a test for want of something, or fails it where nothing may be skipped.
func without(t *testing.T, what string) {
	t.Helper()
	if os.Getenv(testbed.NoSkip) == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func needTool(t *testing.T, tool, debian string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		without(t, "no "+tool+"; run: sudo apt-get install "+debian)
	}
}

func top(t *testing.T) string {
	t.Helper()
	dir, err := testbed.Top()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The first build is of this tree; all have its commit, whatever git says.
var commit = []string{"COMMIT=" + strings.Repeat("c0ffee12", 5), "SOURCE_DATE_EPOCH=1795351978"}

// build runs dist in a tree, once for each name, and returns the directory that it filled.
func build(t *testing.T, name, tree string, env ...string) string {
	t.Helper()
	needTool(t, "s390x-linux-gnu-gcc", "gcc-s390x-linux-gnu libc6-dev-s390x-cross")
	nfpm := filepath.Join(top(t), "build", "tools", "nfpm")
	for path, how := range map[string]string{nfpm: "make build/tools/nfpm", "/usr/include/security/pam_appl.h": "sudo apt-get install libpam0g-dev"} {
		if _, err := os.Stat(path); err != nil {
			without(t, "no "+path+"; run: "+how)
		}
	}
	made.Lock()
	defer made.Unlock()
	if made.dir == "" {
		dir, err := os.MkdirTemp("", "packages")
		if err != nil {
			t.Fatal(err)
		}
		made.dir, made.dirs = dir, map[string]string{}
	}
	out := filepath.Join(made.dir, name)
	if made.dirs[name] != "" {
		return out
	}
	cmd := exec.Command(filepath.Join(tree, "installer", "package", "dist"), out)
	cmd.Env = slices.Concat(os.Environ(), commit, []string{"NFPM=" + nfpm}, env)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dist: %v\n%s", err, text)
	}
	made.dirs[name] = out
	return out
}

const first = "VERSION=0.8.0~pre1"

func packages(t *testing.T) string { return build(t, "first", top(t), first) }

// newer are the same programs as a later version, in the formats that can be installed here.
func newer(t *testing.T) string {
	return build(t, "newer", top(t), "VERSION=0.8.0", "FORMATS=deb rpm", "ARCHES=amd64")
}

// file finds the one package with this end of its name.
func file(t *testing.T, dir, end string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"+end))
	if err != nil || len(found) != 1 {
		t.Fatalf("found %q and %v, want one file that ends in %s", found, err, end)
	}
	return found[0]
}

// copyTree copies the sources, without git's directory and without what was built.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if name == ".git" || name == "build" {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil // a worktree's .git
		}
		into := filepath.Join(to, name)
		if d.IsDir() {
			return os.MkdirAll(into, 0o755)
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(into, text, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// output is what a command prints; its failure fails the test.
func output(t *testing.T, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s%s", command, err, out, errs.String())
	}
	return string(out)
}

// TestSameBits builds once more, from a copy of the tree that git knows nothing of, in another directory.
func TestSameBits(t *testing.T) {
	one := packages(t)
	tree := t.TempDir()
	copyTree(t, top(t), tree)
	two := build(t, "again", tree, first)
	entries, err := os.ReadDir(one)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 6 {
		t.Errorf("%d packages, want deb, rpm and apk for two processors", len(entries))
	}
	for _, e := range entries {
		a, err := os.ReadFile(filepath.Join(one, e.Name()))
		b, again := os.ReadFile(filepath.Join(two, e.Name()))
		if err := errors.Join(err, again); err != nil {
			t.Error(err)
		} else if !bytes.Equal(a, b) {
			t.Errorf("%s: built twice, it is not the same", e.Name())
		}
	}
}
