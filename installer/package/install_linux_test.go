package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"batchwarden/installer/testbed"
)

// newRoot is a Debian's root file system, whose changes go to memory. Nothing of it runs but what a package manager
// starts in it; systemd is installed, and not booted.
func newRoot(t *testing.T) string {
	t.Helper()
	testbed.NeedMachine(t)
	lower, err := testbed.RootFS()
	if err != nil {
		t.Fatal(err)
	}
	mount := func(source, target, kind, data string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(target, 0o755), syscall.Mount(source, target, kind, 0, data)); err != nil {
			t.Fatalf("mount %s: %v", target, err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(target, syscall.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", target, err)
			}
		})
	}
	memory := t.TempDir()
	mount("tmpfs", memory, "tmpfs", "mode=0755")
	for _, dir := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(memory, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(memory, "root")
	mount("overlay", root, "overlay", "lowerdir="+lower+",upperdir="+memory+"/upper,workdir="+memory+"/work")
	mount("proc", root+"/proc", "proc", "")
	mount("tmpfs", root+"/dev", "tmpfs", "mode=0755")
	if err := syscall.Mknod(root+"/dev/null", syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Fatal(err)
	}
	return root
}

// tree lists what lies in a root file system, without what package managers, logs and account files' copies leave.
func tree(t *testing.T, root string) (names []string) {
	t.Helper()
	apart := []string{"proc", "dev", "run", "tmp", "var/lib/dpkg", "var/lib/rpm", "var/log", "var/cache", "etc/.pwd.lock"}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if slices.Contains(apart, name) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Dir(name) != "etc" || !strings.HasSuffix(name, "-") {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func mustRead(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// a host in which batchwarden was installed and is used.
type host struct {
	t                *testing.T
	root             string
	configuration    string // what somebody wrote
	limits, received string
}

// chroot runs a command in it.
func (h *host) chroot(command ...string) string {
	h.t.Helper()
	return output(h.t, append([]string{"chroot", h.root}, command...)...)
}

// installed checks what a new installation is, and uses it.
func (h *host) installed() {
	t := h.t
	t.Helper()
	for path, want := range map[string]string{
		"/etc/batchwarden":              "755 root root",
		"/etc/batchwarden/clients.d":    "755 root root",
		"/etc/batchwarden/limits.yaml":  "600 root root",
		"/var/lib/batchwarden":          "700 batchwarden batchwarden",
		"/var/lib/batchwarden-launcher": "700 root root",
	} {
		if got := strings.TrimSpace(h.chroot("stat", "-c", "%a %U %G", path)); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	h.chroot("getent", "passwd", "batchwarden-sync")
	h.chroot("getent", "group", "batchwarden-admin")
	if _, err := os.Lstat(h.root + "/etc/batchwarden/batchwarden.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a configuration that nobody wrote: %v", err)
	}
	if got := h.chroot("batchwarden", "version"); !strings.Contains(got, "batchwarden 0.8.0~pre1 (commit c0ffee12") {
		t.Errorf("installed is %s", got)
	}
	h.configuration, h.limits, h.received = "version: 1\n", "version: 1\nrequesters: [opcon]\n", "sealed"
	for name, text := range map[string]string{
		"/etc/batchwarden/batchwarden.yaml": h.configuration, "/etc/batchwarden/limits.yaml": h.limits, "/var/lib/batchwarden/vault": h.received,
	} {
		if err := os.WriteFile(h.root+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.chroot("systemctl", "--quiet", "enable", "batchwardend.service")
}

// kept checks that what somebody wrote and what was received are there.
func (h *host) kept() {
	h.t.Helper()
	limits := h.root + "/etc/batchwarden/limits.yaml"
	if _, err := os.Stat(limits + ".rpmsave"); err == nil {
		limits += ".rpmsave" // rpm has removed the package
	}
	for name, want := range map[string]string{
		h.root + "/etc/batchwarden/batchwarden.yaml": h.configuration, limits: h.limits, h.root + "/var/lib/batchwarden/vault": h.received,
	} {
		if got := mustRead(h.t, name); got != want {
			h.t.Errorf("%s has become %q, want %q", name, got, want)
		}
	}
}

func (h *host) upgraded() {
	h.t.Helper()
	if got := h.chroot("batchwarden", "version"); !strings.Contains(got, "batchwarden 0.8.0 ") {
		h.t.Errorf("after the upgrade there is %s", got)
	}
	if _, err := os.Lstat(h.root + "/etc/systemd/system/multi-user.target.wants/batchwardend.service"); err != nil {
		h.t.Errorf("the upgrade has disabled the service: %v", err)
	}
	h.kept()
}

func (h *host) removed() {
	h.t.Helper()
	for _, name := range []string{"/usr/bin/batchwarden", "/usr/lib/batchwarden", "/etc/systemd/system/multi-user.target.wants/batchwardend.service"} {
		if _, err := os.Lstat(h.root + name); !errors.Is(err, fs.ErrNotExist) {
			h.t.Errorf("%s is still there: %v", name, err)
		}
	}
	h.kept()
}

func TestDpkg(t *testing.T) {
	needTool(t, "dpkg", "dpkg")
	one, two := file(t, packages(t), "_amd64.deb"), file(t, newer(t), "_amd64.deb")
	h := &host{t: t, root: newRoot(t)}
	before := tree(t, h.root)
	accounts := mustRead(t, h.root+"/etc/passwd") + mustRead(t, h.root+"/etc/group")
	dpkg := func(args ...string) string {
		t.Helper()
		return output(t, append([]string{"dpkg", "--root=" + h.root, "--force-unsafe-io"}, args...)...)
	}
	dpkg("--install", one)
	h.installed()
	dpkg("--install", two)
	h.upgraded()
	dpkg("--install", two) // once more changes nothing
	h.upgraded()
	dpkg("--remove", "batchwarden")
	h.removed()
	dpkg("--install", two)
	h.kept()
	dpkg("--purge", "batchwarden")
	for _, name := range tree(t, h.root) {
		if !slices.Contains(before, name) {
			t.Errorf("the purge has left %s", name)
		}
	}
	if after := mustRead(t, h.root+"/etc/passwd") + mustRead(t, h.root+"/etc/group"); after != accounts {
		t.Errorf("the purge has left accounts:\n%s", after)
	}
}

// TestRPM installs with rpm's own program. That the root file system is Debian's is nothing to our scripts.
func TestRPM(t *testing.T) {
	needTool(t, "rpm", "rpm")
	one, two := file(t, packages(t), ".x86_64.rpm"), file(t, newer(t), ".x86_64.rpm")
	h := &host{t: t, root: newRoot(t)}
	rpm := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("rpm", append([]string{"--root", h.root, "--force-debian", "--nodeps"}, args...)...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "error:") || strings.Contains(string(out), "warning: %") {
			t.Fatalf("rpm %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	rpm("--install", one)
	h.installed()
	rpm("--upgrade", two)
	h.upgraded()
	if out := rpm("--erase", "batchwarden"); !strings.Contains(out, "batchwarden: kept /etc/batchwarden") {
		t.Errorf("removing says %q, want what was kept", out)
	}
	h.removed()
}
