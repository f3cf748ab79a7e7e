package daemon_test

import (
	"errors"
	"fmt"
	"go/build"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const ours = "batchwarden/"

// A target is a platform to build for.
type target struct{ os, arch string }

func (t target) String() string { return t.os + "/" + t.arch }

// A module is what our files say for one target, and how to find the files of
// everything else they are built from.
type module struct {
	on       target
	packages map[string]*source // by path below the module, "daemon/broker"

	ctxt    build.Context // as the product is built: without cgo
	modules []dependency  // longest path first
	outside map[string][]string
	lost    []string // packages whose files were not found, so that what they contain went unseen
}

// A source is what one package's files say.
type source struct {
	dir     string
	imports []string // of all files of this target, with those that need cgo
	goos    []string // files that ask runtime.GOOS
}

type dependency struct{ path, dir string }

// faults holds the module against the table and the rules, in the order of
// the packages' names.
func (m *module) faults(may map[string][]string, support map[string]bool) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(m.packages)) {
		p := m.packages[name]
		fault := func(format string, args ...any) {
			faults = append(faults, m.on.String()+": "+fmt.Sprintf(format, args...))
		}
		allowed, listed := may[name]
		if !listed {
			fault("%s is not in the table", name)
		}
		starts, forTests := support[name]
		for _, file := range p.goos {
			fault("%s/%s asks runtime.GOOS: say it with a file per system", name, file)
		}
		for _, imp := range p.imports {
			inner, own := strings.CutPrefix(imp, ours)
			_, ofTests := support[inner]
			switch {
			case own && ofTests && !forTests:
				fault("%s imports %s, which is for tests only", name, inner)
			case own && !slices.Contains(allowed, inner):
				fault("%s may not import %s", name, inner)
			case system(imp) && !within(name, "platform") && !(starts && process(imp)):
				fault("%s imports %s: only platform/ touches the operating system", name, imp)
			case within(name, "daemon/policy") && impure(imp):
				fault("%s imports %s: policy is pure", name, imp)
			}
		}
	}
	return faults
}

// system reports an import that reaches past the standard library's portable
// half.
func system(imp string) bool {
	return imp == "unsafe" || imp == "C" || imp == "plugin" || process(imp) || within(imp, "golang.org/x/sys")
}

// process reports an import that test support may have, to start processes
// and to be other users.
func process(imp string) bool { return imp == "syscall" || imp == "os/exec" || imp == "os/user" }

// impure reports an import by which a decision could depend on more than its
// request and its document.
func impure(imp string) bool {
	for _, root := range []string{"os", "net", "time", "log", "math/rand", "crypto/rand", "context"} {
		if within(imp, root) {
			return true
		}
	}
	return false
}

// within reports whether name is root or lies below it.
func within(name, root string) bool { return name == root || strings.HasPrefix(name, root+"/") }

// readModule reads the packages below dir as they build for one target. It
// reads the files itself rather than run "go list": go test reuses a cached
// result unless the files that the test process opened have changed, and it
// cannot see what a child process opened.
func readModule(t *testing.T, dir string, on target) *module {
	t.Helper()
	m := &module{on: on, packages: map[string]*source{}, outside: map[string][]string{}, ctxt: build.Default}
	m.ctxt.GOOS, m.ctxt.GOARCH, m.ctxt.CgoEnabled = on.os, on.arch, false
	m.modules = dependencies(t, filepath.Join(dir, "go.mod"))
	all := m.ctxt
	all.CgoEnabled = true
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if skip(dir, name, d.Name()) {
			return fs.SkipDir
		}
		p, err := all.ImportDir(filepath.Join(dir, name), 0)
		if _, none := errors.AsType[*build.NoGoError](err); none {
			return nil
		}
		if err != nil {
			return err
		}
		if len(p.GoFiles)+len(p.CgoFiles) == 0 {
			return nil // tests only
		}
		s := &source{dir: p.Dir, imports: p.Imports}
		for _, file := range slices.Concat(p.GoFiles, p.CgoFiles) {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				return err
			}
			if asksGOOS.Match(text) {
				s.goos = append(s.goos, file)
			}
		}
		m.packages[name] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.packages) < 10 {
		t.Fatalf("found only %d packages below %s", len(m.packages), dir)
	}
	return m
}

var asksGOOS = regexp.MustCompile(`\bruntime\.(GOOS|GOARCH)\b`)

// skip reports a directory that is no part of the module: what Go itself
// leaves out, what we build, and nested modules.
func skip(root, name, base string) bool {
	if name == "." {
		return false
	}
	if base == "testdata" || base == "build" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return true
	}
	return exists(filepath.Join(root, name, "go.mod"))
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// path returns the way by which one of our packages comes to contain the
// package to, shortest first found, or nil.
func (m *module) path(from, to string) []string {
	came := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		for _, next := range m.importsOf(at) {
			next = strings.TrimPrefix(next, ours)
			if _, seen := came[next]; seen {
				continue
			}
			came[next] = at
			if next == to {
				var way []string
				for ; next != ""; next = came[next] {
					way = append(way, next)
				}
				slices.Reverse(way)
				return way
			}
			queue = append(queue, next)
		}
	}
	return nil
}

// importsOf reads what a package imports, ours or not. A package that has no
// file for the target imports nothing.
func (m *module) importsOf(name string) []string {
	if p := m.packages[name]; p != nil {
		return p.imports
	}
	if imports, known := m.outside[name]; known {
		return imports
	}
	var imports []string
	found := name == "unsafe" || name == "C"
	for _, dir := range m.candidates(name) {
		p, err := m.ctxt.ImportDir(dir, 0)
		_, none := errors.AsType[*build.NoGoError](err)
		if err == nil || none && exists(dir) {
			imports, found = p.Imports, true
			break
		}
	}
	if !found {
		m.lost = append(m.lost, name)
	}
	m.outside[name] = imports
	return imports
}

// candidates says where the files of a package that is not ours may lie.
func (m *module) candidates(name string) []string {
	if first, _, _ := strings.Cut(name, "/"); !strings.Contains(first, ".") {
		return []string{filepath.Join(m.ctxt.GOROOT, "src", filepath.FromSlash(name))}
	}
	dirs := []string{filepath.Join(m.ctxt.GOROOT, "src", "vendor", filepath.FromSlash(name))}
	for _, d := range m.modules {
		if within(name, d.path) {
			dirs = slices.Insert(dirs, 0, filepath.Join(d.dir, filepath.FromSlash(strings.TrimPrefix(name, d.path))))
			break
		}
	}
	return dirs
}

var required = regexp.MustCompile(`(?m)^(?:require)?\s+(\S+) (v\S+)`)

// dependencies reads the modules that go.mod requires and finds them in the
// module cache.
func dependencies(t *testing.T, file string) (all []dependency) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "replace ") {
		t.Fatalf("%s replaces a module, which this test does not follow", file)
	}
	cache := os.Getenv("GOMODCACHE")
	if cache == "" {
		cache = filepath.Join(filepath.SplitList(build.Default.GOPATH)[0], "pkg", "mod")
	}
	for _, r := range required.FindAllStringSubmatch(string(text), -1) {
		dir := filepath.Join(cache, filepath.FromSlash(escaped(r[1])+"@"+escaped(r[2])))
		all = append(all, dependency{path.Clean(r[1]), dir})
	}
	slices.SortFunc(all, func(a, b dependency) int { return len(b.path) - len(a.path) })
	return all
}

// escaped is how the module cache writes a path: an upper-case letter becomes
// "!" and its lower case.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsUpper(r) {
			b.WriteByte('!')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
