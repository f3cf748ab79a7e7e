package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	rootPrefix = "batchwarden-bed-"
	ownerFile  = "owner"
)

// disk is a directory on a file system that programs may be run from, and that
// is root's alone.
const disk = "/var/lib"

// parent is where beds have their files.
func parent(onDisk bool) string {
	if sandboxed != "" && !onDisk {
		return "/run"
	}
	return disk
}

// sandboxID begins the names of what lies outside a sandbox but belongs to it.
func sandboxID() string {
	if sandboxed == "" {
		return ""
	}
	return sandboxed + "-"
}

// removeStaleRoots removes the directories of dead beds.
func removeStaleRoots(onDisk bool) error {
	roots, err := filepath.Glob(filepath.Join(parent(onDisk), rootPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		owner, err := os.ReadFile(filepath.Join(root, ownerFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		if !alive(string(owner)) {
			errs = append(errs, os.RemoveAll(root))
		}
	}
	return errors.Join(errs...)
}

// RemoveDead removes what the beds of dead processes left: accounts and their
// processes, cgroups, directories. pid is one such process.
func RemoveDead(prefix string, pid int) error {
	return errors.Join(removeStale(prefix), removeCgroups(fmt.Sprintf("%s%s%d-", cgroupPrefix, sandboxID(), pid)), removeStaleRoots(false))
}

// Leftovers names what is there of the beds of a process: accounts and groups
// with the prefix, cgroups, directories, mounts, and processes whose programs
// lay in a bed. Nothing is what it should name once the process is gone.
func Leftovers(prefix string, pid int) (left []string) {
	for _, name := range AccountsLeft(prefix) {
		left = append(left, "account or group "+name)
	}
	id := fmt.Sprintf("%s%d-", sandboxID(), pid)
	for _, dir := range CgroupsLeft(cgroupPrefix + id) {
		left = append(left, "cgroup "+dir)
	}
	root := filepath.Join(parent(false), rootPrefix+id)
	found := func(pattern string) []string {
		names, err := filepath.Glob(pattern)
		if err != nil {
			left = append(left, err.Error())
		}
		return names
	}
	for _, dir := range found(root + "*") {
		left = append(left, "directory "+dir)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		left = append(left, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, root) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	for _, link := range found("/proc/[0-9]*/exe") {
		exe, err := os.Readlink(link)
		if err == nil && strings.HasPrefix(exe, root) {
			left = append(left, fmt.Sprintf("process %s %s", filepath.Base(filepath.Dir(link)), exe))
		}
	}
	return left
}

// removeSandbox removes what a sandbox that has ended left outside itself.
func removeSandbox(id string) error {
	roots, err := filepath.Glob(filepath.Join(disk, rootPrefix+id+"-*"))
	errs := []error{err, removeCgroups(cgroupPrefix + id + "-"), removeLegacyCgroups(cgroupPrefix + id + "-")}
	for _, root := range roots {
		errs = append(errs, os.RemoveAll(root))
	}
	return errors.Join(errs...)
}

// Children returns the pids of a process's children.
func Children(pid int) (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
		if err == nil && strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", pid)) {
			pids = append(pids, child)
		}
	}
	return pids, nil
}
