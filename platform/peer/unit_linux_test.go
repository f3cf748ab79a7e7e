package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnitOf(t *testing.T) {
	for cgroup, want := range map[string]string{
		"0::/system.slice/lsam.service\n":                                                       "lsam.service",
		"0::/system.slice/system-lsam.slice/lsam@db01.service\n":                                "lsam@db01.service",
		"0::/batch.slice/lsam.service\n":                                                        "lsam.service",
		"0::/system.slice/lsam.service/worker\n":                                                "lsam.service",
		"0::/system.slice/_cpu.service\n":                                                       "cpu.service",
		"12:pids:/system.slice/lsam.service\n1:name=systemd:/system.slice/lsam.service\n0::/\n": "lsam.service",
		"1:name=systemd:/\n0::/system.slice/lsam.service\n":                                     "lsam.service",
		// The first name counts: what is below was made by whoever has it.
		"0::/system.slice/forge.service/system.slice/lsam.service\n":             "forge.service",
		"0::/system.slice/docker-0123.scope/system.slice/lsam.service\n":         "",
		"0::/system.slice/docker.service/lsam.service\n":                         "docker.service",
		"0::/docker/0123/system.slice/lsam.service\n":                            "",
		"0::/kubepods.slice/kubepods-pod1.slice/cri-1.scope/lsam.service\n":      "",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/l.service\n": "",
		"0::/user.slice/user-1000.slice/user@1000.service\n":                     "",
		"0::/user.slice/user-1000.slice/session-1.scope\n":                       "",
		"0::/user.slice/lsam.service\n":                                          "",
		"0::/../system.slice/lsam.service\n":                                     "",
		"0::/../../lsam.service\n":                                               "",
		"0::/lsam.service\n":                                                     "",
		"0::/system.slice/lsam.service (deleted)\n":                              "",
		"0::/system.slice/.service\n":                                            "",
		"0::/.slice/lsam.service\n":                                              "",
		"0::system.slice/lsam.service\n":                                         "",
		"0::/init.scope\n":                                                       "",
		"0::/system.slice\n":                                                     "",
		"0::/\n":                                                                 "",
		"1:name=other:/system.slice/lsam.service\n0::/\n":                        "",
		"3:cpu:/system.slice/lsam.service\n":                                     "",
		"":                                                                       "",
	} {
		if got := unitOf(cgroup); got != want {
			t.Errorf("%q: got %q, want %q", cgroup, got, want)
		}
	}
}

// TestUnit makes the cgroups that systemd and others would make.
func TestUnit(t *testing.T) {
	needRoot(t)
	mounted := cgroup2(t)
	slice := filepath.Join(mounted, fmt.Sprintf("batchwardentest%d.slice", os.Getpid()))
	a, err := NewAttestor()
	if err != nil {
		t.Fatal(err)
	}
	for below, want := range map[string]string{
		"lsam.service":                       "lsam.service",
		"forge.service/x.slice/lsam.service": "forge.service",
		"box-1.scope/x.slice/lsam.service":   "",
	} {
		dir := filepath.Join(slice, below)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // after the client's end
			for d := dir; d != mounted; d = filepath.Dir(d) {
				if err := os.Remove(d); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, os.ErrNotExist) {
					t.Error(err)
				}
			}
		})
		at, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		cmd := exec.Command("/proc/self/exe")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(at.Fd())}
		c := call(t, cmd)
		got, err := a.Attest(context.Background(), c.conn, c.path, Want{Program: true})
		if err != nil || got.Unit != want {
			t.Errorf("%s: got %+v, %v, want unit %q", below, got, err, want)
		}
	}
}

// cgroup2 is where the second version of cgroups is mounted.
func cgroup2(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		before, after, ok := strings.Cut(line, " - cgroup2 ")
		if f := strings.Fields(before); ok && after != "" && len(f) > 4 && f[3] == "/" {
			return f[4]
		}
	}
	const how = "there is no cgroup2 file system; as root: mount -t cgroup2 none DIR"
	if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
		t.Fatal(how)
	}
	t.Skip(how)
	return ""
}
