package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// holds are the files of every package beside documents and manual pages, each root's.
const holds = `
0600 /etc/batchwarden/limits.yaml
0755 /usr/bin/batchwarden
0755 /usr/lib/batchwarden/batchwarden-become
0755 /usr/lib/batchwarden/batchwarden-launcher
0755 /usr/lib/batchwarden/batchwarden-nss
0755 /usr/lib/batchwarden/batchwarden-pam
0755 /usr/lib/batchwarden/batchwarden-sync
0755 /usr/lib/batchwarden/batchwardend
0644 /usr/lib/systemd/system/batchwarden-launcher.service
0644 /usr/lib/systemd/system/batchwarden.socket
0644 /usr/lib/systemd/system/batchwardend.service
0644 /usr/lib/sysusers.d/batchwarden.conf
0644 /usr/lib/tmpfiles.d/batchwarden.conf
0644 /usr/share/bash-completion/completions/batchwarden
0644 /usr/share/batchwarden/batchwarden.rules.yml
0644 /usr/share/batchwarden/batchwarden.yaml
0644 /usr/share/fish/vendor_completions.d/batchwarden.fish
`

// extra are those of one format.
var extra = map[string]string{
	"deb": "0644 /usr/share/lintian/overrides/batchwarden\n0644 /usr/share/zsh/vendor-completions/_batchwarden\n",
	"rpm": "0644 /usr/share/zsh/site-functions/_batchwarden\n",
	"apk": "0644 /usr/share/zsh/site-functions/_batchwarden\n",
}

// documents are some of the others, each of which every package must have.
var documents = []string{
	"/usr/share/doc/batchwarden/copyright", "/usr/share/doc/batchwarden/sbom.cdx.json",
	"/usr/share/doc/batchwarden/licences/", "/usr/share/man/man1/batchwarden.1.gz",
}

var processors = []struct {
	machine elf.Machine
	ends    map[string]string
}{
	{elf.EM_X86_64, map[string]string{"deb": "_amd64.deb", "rpm": ".x86_64.rpm", "apk": "_x86_64.apk"}},
	{elf.EM_S390, map[string]string{"deb": "_s390x.deb", "rpm": ".s390x.rpm", "apk": "_s390x.apk"}},
}

// content is a package's files by their names.
type content map[string]entry

type entry struct {
	mode int64
	user string
	text []byte
}

func unpack(t *testing.T, format, name string) content {
	t.Helper()
	var archive io.Reader
	switch format {
	case "deb":
		archive = strings.NewReader(output(t, "dpkg-deb", "--fsys-tarfile", name))
	case "apk": // three gzip streams, one archive
		packed, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer packed.Close()
		if archive, err = gzip.NewReader(packed); err != nil {
			t.Fatal(err)
		}
	case "rpm":
		needTool(t, "rpm2archive", "rpm")
		archive = strings.NewReader(output(t, "sh", "-c", `exec rpm2archive -n - <"$0"`, name))
	}
	all := content{}
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		path := "/" + strings.TrimPrefix(h.Name, "./")
		if h.Typeflag != tar.TypeReg || format == "apk" && strings.HasPrefix(path, "/.") {
			continue // .PKGINFO and the scripts
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[path] = entry{h.Mode & 0o7777, h.Uname, text}
	}
}

func TestContents(t *testing.T) {
	dir := packages(t)
	for _, on := range processors {
		for format, end := range on.ends {
			t.Run(strings.TrimLeft(end, "_."), func(t *testing.T) {
				all := unpack(t, format, file(t, dir, end))
				var got []string
				for path, e := range all {
					if e.user != "root" {
						t.Errorf("%s belongs to %q", path, e.user)
					}
					if strings.HasPrefix(path, "/usr/share/doc/") || strings.HasPrefix(path, "/usr/share/man/") {
						if e.mode != 0o644 || len(e.text) == 0 {
							t.Errorf("%s has mode %04o and %d octets", path, e.mode, len(e.text))
						}
						continue
					}
					got = append(got, fmt.Sprintf("%04o %s\n", e.mode, path))
					if strings.HasPrefix(path, "/usr/lib/batchwarden/") || strings.HasPrefix(path, "/usr/bin/") {
						checkProgram(t, filepath.Base(path), on.machine, e.text)
					}
				}
				want := slices.Collect(strings.Lines(strings.TrimPrefix(holds, "\n") + extra[format]))
				slices.SortFunc(got, byPath)
				slices.SortFunc(want, byPath)
				if !slices.Equal(got, want) {
					t.Errorf("got\n%swant\n%s", strings.Join(got, ""), strings.Join(want, ""))
				}
				for _, path := range documents {
					if !slices.ContainsFunc(paths(all), func(p string) bool { return strings.HasPrefix(p, path) }) {
						t.Errorf("there is no %s", path)
					}
				}
				checkBill(t, all)
			})
		}
	}
}

func byPath(a, b string) int { return strings.Compare(a[5:], b[5:]) }

func paths(all content) (names []string) {
	for name := range all {
		names = append(names, name)
	}
	return names
}

// checkProgram holds a program against the dependencies that nfpm.yaml names: the processor, the libraries, and the
// oldest C library that will do.
func checkProgram(t *testing.T, name string, machine elf.Machine, text []byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if f.Machine != machine {
		t.Errorf("%s is for %v, want %v", name, f.Machine, machine)
	}
	want := map[string][]string{"batchwarden-nss": {"libc.so.6"}, "batchwarden-pam": {"libpam.so.0", "libc.so.6"}}[name]
	got, err := f.ImportedLibraries()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !slices.Equal(slices.DeleteFunc(got, func(l string) bool { return strings.HasPrefix(l, "ld") }), want) {
		t.Errorf("%s is linked with %q, want %q", name, got, want)
	}
	symbols, err := f.ImportedSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		t.Fatalf("%s: %v", name, err)
	}
	for _, s := range symbols {
		var minor int
		if _, err := fmt.Sscanf(s.Version, "GLIBC_2.%d", &minor); err == nil && minor > 34 {
			t.Errorf("%s wants %s of %s: nfpm.yaml says that glibc 2.34 will do", name, s.Name, s.Version)
		}
		if strings.HasPrefix(s.Name, "pam_") && s.Version != "LIBPAM_1.0" {
			t.Errorf("%s wants %s of %q", name, s.Name, s.Version)
		}
	}
}

// checkBill holds the bill of materials against the programs beside it.
func checkBill(t *testing.T, all content) {
	t.Helper()
	var b cycloneDX
	if err := json.Unmarshal(all["/usr/share/doc/batchwarden/sbom.cdx.json"].text, &b); err != nil {
		t.Fatal(err)
	}
	if b.Format != "CycloneDX" || b.Spec != "1.5" || b.Metadata.Component.Version != "0.8.0~pre1" || b.Metadata.Timestamp != "2026-11-22T12:52:58Z" {
		t.Errorf("got %s %s of %q", b.Format, b.Spec, b.Metadata)
	}
	known := map[string]component{}
	for _, c := range b.Components {
		known[c.Ref] = c
		if len(c.Licences) == 0 {
			t.Errorf("the bill has no licence for %s", c.Ref)
		}
	}
	for path, e := range all {
		if !strings.HasPrefix(path, "/usr/lib/batchwarden/") && !strings.HasPrefix(path, "/usr/bin/") {
			continue
		}
		in := filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(in, e.text, 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := read(in)
		if err != nil {
			t.Fatal(err)
		}
		if c := known["program:"+p.name]; len(c.Hashes) != 1 || c.Hashes[0].Content != p.sha256 {
			t.Errorf("%s: the bill has the sums %q, want %s", p.name, c.Hashes, p.sha256)
		}
		i := slices.IndexFunc(b.Dependencies, func(d dependency) bool { return d.Ref == "program:"+p.name })
		if i < 0 || len(b.Dependencies[i].DependsOn) != len(p.modules) {
			t.Errorf("%s: the bill does not say what it contains", p.name)
			continue
		}
		for _, m := range p.modules {
			if known[m.purl()].Name != m.path || !slices.Contains(b.Dependencies[i].DependsOn, m.purl()) {
				t.Errorf("%s contains %s, which the bill does not have", p.name, m.path)
			}
		}
		if strings.HasPrefix(p.name, "batchwardend") && len(p.modules) < 3 {
			t.Errorf("%s: found only %d modules in it", p.name, len(p.modules))
		}
	}
}

// TestControl: what the package managers are told. What an upgrade may not touch is limits.yaml.
func TestControl(t *testing.T) {
	dir := packages(t)
	deb := file(t, dir, "_amd64.deb")
	if got := output(t, "dpkg-deb", "--info", deb, "conffiles"); got != "/etc/batchwarden/limits.yaml\n" {
		t.Errorf("conffiles: %q", got)
	}
	if got := output(t, "dpkg-deb", "--field", deb, "Version"); got != "0.8.0~pre1\n" {
		t.Errorf("version %q", got)
	}
	needTool(t, "rpm", "rpm")
	rpm := file(t, dir, ".x86_64.rpm")
	if got := output(t, "rpm", "-qp", "--qf", `[%{FILEFLAGS:fflags} %{FILENAMES}\n]`, rpm); !strings.Contains(got, "cn /etc/batchwarden/limits.yaml\n") {
		t.Errorf("limits.yaml is not config(noreplace):\n%s", got)
	}
	if got := output(t, "rpm", "-qp", "--qf", "%{VERSION} %{BUILDHOST}", rpm); got != "0.8.0~pre1 localhost" {
		t.Errorf("version and host of the rpm: %q", got)
	}
	if name := filepath.Base(file(t, dir, "_x86_64.apk")); name != "batchwarden_0.8.0_pre1_x86_64.apk" {
		t.Errorf("the apk is %s", name)
	}
}

// TestLintian looks at one processor's package: the other is of the same nfpm.yaml, and lintian takes its time.
func TestLintian(t *testing.T) {
	needTool(t, "lintian", "lintian")
	deb := file(t, packages(t), "_amd64.deb")
	out, err := exec.Command("lintian", "--allow-root", "--fail-on", "error", "--display-info", deb).CombinedOutput()
	if err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("unused-override")) || bytes.Contains(out, []byte("mismatched-override")) {
		t.Errorf("an override is of no use any more:\n%s", out)
	}
}

// TestOtherProcessor runs what the packages for s390x hold, as far as it runs without a host of that kind.
func TestOtherProcessor(t *testing.T) {
	needTool(t, "qemu-s390x-static", "qemu-user-static")
	all := unpack(t, "deb", file(t, packages(t), "_s390x.deb"))
	dir := t.TempDir()
	for _, name := range []string{"/usr/bin/batchwarden", "/usr/lib/batchwarden/batchwardend", "/usr/lib/batchwarden/batchwarden-launcher"} {
		program := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(program, all[name].text, 0o755); err != nil {
			t.Fatal(err)
		}
		how := "--version"
		if name == "/usr/bin/batchwarden" {
			how = "version"
		}
		if got := output(t, "qemu-s390x-static", program, how); !strings.Contains(got, " 0.8.0~pre1") {
			t.Errorf("%s says %q", name, got)
		}
	}
}
