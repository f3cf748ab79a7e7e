package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"batchwarden/installer/testbed"
	"batchwarden/platform/memscan"
)

func (s *show) searched() error {
	s.say("Every password that was ever in Vault, searched for in the daemon's and the launcher's memory and in all files.")
	passwords := s.bed.Passwords()
	for _, p := range []*testbed.Process{s.bed.Daemon, s.bed.Launcher} {
		hits, err := memscan.Scan(p.PID(), needles(passwords))
		if err != nil {
			return err
		}
		s.note("memory of %s (pid %d): %d copies or fragments of %d passwords", p.Name, p.PID(), len(hits), len(passwords))
		if len(hits) > 0 {
			return fmt.Errorf("%s holds a readable password: %v", p.Name, hits[0])
		}
	}
	hits, err := memscan.ScanFiles(needles(passwords), s.bed.State, s.bed.Jobs, s.bed.Etc, s.bed.Logs)
	if err != nil {
		return err
	}
	s.note("files of state, configuration, jobs and logs: %d copies", len(hits))
	if len(hits) > 0 {
		return fmt.Errorf("a password lies in a file: %v", hits)
	}
	return s.planted(passwords[len(passwords)-1])
}

// planted shows that the search finds what is there.
func (s *show) planted(password string) error {
	pid, release, err := holder(password)
	if err != nil {
		return err
	}
	inProcess, err := memscan.Scan(pid, memscan.Needles([]byte(password)))
	if err := errors.Join(err, release()); err != nil {
		return err
	}
	file := filepath.Join(s.bed.Root, "planted")
	if err := os.WriteFile(file, []byte("x"+base64.StdEncoding.EncodeToString([]byte(password))), 0o600); err != nil {
		return err
	}
	inFile, err := memscan.ScanFiles(memscan.Needles([]byte(password)), file)
	if err := errors.Join(err, os.Remove(file)); err != nil {
		return err
	}
	s.note("the same search where a copy was planted: %d in a process, %d in a file", len(inProcess), len(inFile))
	if len(inProcess) == 0 || len(inFile) == 0 {
		return errors.New("the search did not find the planted copies, so it proves nothing")
	}
	return nil
}

// needles are all forms of all passwords.
func needles(passwords []string) (all []memscan.Needle) {
	for _, p := range passwords {
		all = append(all, memscan.Needles([]byte(p))...)
	}
	return all
}

// holder starts a process that has the password in its memory.
func holder(password string) (pid int, release func() error, err error) {
	cmd := exec.Command("/bin/sh", "-c", "read -r held; echo ready; read -r end; exit 0")
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	release = func() error { return errors.Join(in.Close(), cmd.Wait()) }
	if _, err := in.Write([]byte(password + "\n")); err != nil {
		return 0, nil, errors.Join(err, release())
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		return 0, nil, errors.Join(err, release())
	}
	return cmd.Process.Pid, release, nil
}
