//go:build linux

package main

import (
	"io/fs"
	"os/exec"
	"syscall"
)

// as makes cmd run as another user, with no group but that user's.
func as(cmd *exec.Cmd, id uint32) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
}

func uid(fi fs.FileInfo) uint32 { return fi.Sys().(*syscall.Stat_t).Uid }
