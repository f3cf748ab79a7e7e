package facts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// maxFile bounds one file that is read, and maxJournal what the journal says, in octets.
const (
	maxFile    = 1 << 20
	maxJournal = 8 << 20
)

func system() []Fact {
	var list []Fact
	for _, path := range []string{
		"/proc/sys/kernel/osrelease", "/proc/sys/kernel/version", "/etc/os-release", "/proc/meminfo", "/proc/loadavg",
		"/proc/self/cgroup", "/proc/sys/fs/suid_dumpable", "/proc/sys/kernel/yama/ptrace_scope", "/proc/sys/kernel/random/boot_id",
	} {
		list = append(list, file("system"+path, path))
	}
	return append(list, cgroupMounts())
}

// cgroupMounts are the lines of /proc/self/mounts about cgroups.
func cgroupMounts() Fact {
	f := file("system/cgroup-mounts", "/proc/self/mounts")
	var lines []string
	for line := range strings.Lines(f.Text) {
		if strings.Contains(line, " cgroup") {
			lines = append(lines, line)
		}
	}
	f.Text = strings.Join(lines, "")
	return f
}

func processes(programs []string) []Fact {
	var list []Fact
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return []Fact{{Name: "processes", Err: err}}
	}
	for _, dir := range dirs {
		comm, err := os.ReadFile(dir + "/comm")
		if err != nil {
			continue // it has ended
		}
		at := slices.IndexFunc(programs, func(p string) bool { return strings.TrimSpace(string(comm)) == p[:min(len(p), 15)] }) // the kernel keeps 15
		if at < 0 {
			continue
		}
		name := "processes/" + programs[at] + "-" + filepath.Base(dir)
		for _, of := range []string{"status", "limits", "cgroup"} {
			list = append(list, file(name+"/"+of, dir+"/"+of))
		}
		list = append(list, cgroup(name, dir)...)
	}
	return list
}

// cgroup is what the process's cgroup allows and takes.
func cgroup(name, proc string) (list []Fact) {
	text, err := os.ReadFile(proc + "/cgroup")
	_, path, unified := strings.Cut(string(text), "0::")
	if err != nil || !unified {
		return nil
	}
	path = "/sys/fs/cgroup" + strings.TrimSpace(path)
	for _, of := range []string{"memory.max", "memory.current", "memory.events", "pids.max", "pids.current", "cgroup.controllers", "cgroup.subtree_control"} {
		if f := file(name+"/"+of, path+"/"+of); f.Err == nil { // else that controller is not on
			list = append(list, f)
		}
	}
	return list
}

// unitDirs are where units lie, as systemd looks for them.
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

func units(names []string) (list []Fact) {
	seen := map[string]bool{}
	for _, dir := range unitDirs {
		if real, err := filepath.EvalSymlinks(dir); err != nil || seen[real] {
			continue
		} else {
			seen[real] = true
		}
		for _, name := range names {
			drops, err := filepath.Glob(filepath.Join(dir, name+".d", "*.conf"))
			if err != nil {
				continue // not a pattern: a name of ours is one
			}
			for _, path := range append([]string{filepath.Join(dir, name)}, drops...) {
				f := file("units"+path, path)
				if errors.Is(f.Err, fs.ErrNotExist) {
					continue
				}
				f.Text = withoutValues(f.Text)
				list = append(list, f)
			}
		}
	}
	return list
}

// file reads the beginning of one file.
func file(name, path string) Fact {
	f, err := os.Open(path)
	if err != nil {
		return Fact{Name: name, Err: err}
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	return Fact{Name: name, Text: string(text), Err: err}
}

func owner(info fs.FileInfo) string {
	s, is := info.Sys().(*syscall.Stat_t)
	if !is {
		return "?"
	}
	return fmt.Sprintf("%6d %6d", s.Uid, s.Gid)
}

// journalctl is where systemd installs it: what PATH says is no business of a program that root runs.
var journalctl = []string{"/usr/bin/journalctl", "/bin/journalctl"}

func journal(ctx context.Context, lines int, units []string) (string, error) {
	at := slices.IndexFunc(journalctl, func(path string) bool { _, err := os.Stat(path); return err == nil })
	if at < 0 {
		return "", fmt.Errorf("facts: this system has no journalctl: %w", errors.ErrUnsupported)
	}
	args := []string{"--no-pager", "--quiet", "--output=short-iso-precise", "--lines=" + strconv.Itoa(lines)}
	for _, u := range units {
		args = append(args, "--unit="+u)
	}
	cmd := exec.CommandContext(ctx, journalctl[at], args...)
	cmd.Env = []string{"LC_ALL=C.UTF-8"}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", fmt.Errorf("facts: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("facts: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(out, maxJournal))
	_, _ = io.Copy(io.Discard, out) // so that it ends; what is too much is not wanted
	if err = errors.Join(err, cmd.Wait()); err != nil {
		return "", fmt.Errorf("facts: journalctl: %w: %.300s", err, bytes.TrimSpace(errs.Bytes()))
	}
	if len(text) == 0 {
		return "", fmt.Errorf("facts: the journal shows this user nothing of %s", strings.Join(units, ", "))
	}
	return string(text), nil
}

// held finds settings of units whose values may be secrets.
var held = regexp.MustCompile(`(?m)^(\s*(?:Environment|SetCredential|SetCredentialEncrypted)\s*=)(?:[^\n]*\\\n)*[^\n]*$`)

func withoutValues(unit string) string { return held.ReplaceAllString(unit, "$1(left out)") }
