package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
)

const (
	syncTime     = 3 * time.Minute
	maxSyncLine  = 1024
	maxSyncLines = 100
)

// sync runs the sync worker between the daemon's two pipes, as its own user, with a fixed command, until it ends, ctx
// does, or its time is up.
func (k *keeper) sync(ctx context.Context, stdin, stdout *os.File) (*launch.SyncExit, error) {
	for _, f := range []*os.File{stdin, stdout} {
		if err := isPipe(f); err != nil {
			return nil, &launch.Refused{Code: launch.CodeInvalid, Reason: "the sync worker talks through pipes: " + err.Error()}
		}
	}
	if !k.beginSync() {
		return nil, &launch.Refused{Code: launch.CodeOverloaded, Reason: "a sync worker is running"}
	}
	defer k.endSync()
	ctx, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()

	cmd := exec.CommandContext(ctx, k.SyncPath, k.SyncArgs...)
	cmd.Args[0] = filepath.Base(k.SyncPath)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + userPath} // not nil: that would be our own
	cmd.Stdin, cmd.Stdout = stdin, stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if k.root {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: k.Sync.UID, Gid: k.Sync.GID, Groups: k.Sync.GIDs()}
	}
	said, theirs, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = theirs
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) } // its session has one group
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(&launch.Refused{Code: launch.CodeUnavailable, Reason: "the sync worker cannot be started: " + err.Error()}, said.Close(), theirs.Close())
	}
	// Ours are closed, so that the daemon and the worker see each other's ends.
	err = errors.Join(theirs.Close(), stdin.Close(), stdout.Close())
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		k.relay(said)
	}()
	waitErr := cmd.Wait()
	_ = said.SetReadDeadline(time.Now().Add(time.Second)) // something it left behind may hold the other end
	<-logged
	err = errors.Join(err, said.Close())
	if err != nil {
		k.Log.Error("sync worker", "err", err)
	}
	return exitOf(ctx, cmd, waitErr), nil
}

func exitOf(ctx context.Context, cmd *exec.Cmd, err error) *launch.SyncExit {
	state := cmd.ProcessState
	exit := &launch.SyncExit{ExitCode: -1}
	if state != nil {
		exit.ExitCode = state.ExitCode()
	}
	switch status, ok := sysStatus(state); {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		exit.Reason = fmt.Sprintf("was stopped after %v", syncTime)
	case ctx.Err() != nil:
		exit.Reason = "was stopped: nobody waits for it any more"
	case ok && status.Signaled():
		exit.Reason = "was ended by signal " + signalName(status.Signal())
	case exit.ExitCode != 0:
		exit.Reason = fmt.Sprintf("ended with exit code %d", exit.ExitCode)
	case err != nil:
		exit.ExitCode, exit.Reason = -1, "cannot be waited for: "+err.Error()
	}
	return exit
}

func sysStatus(state *os.ProcessState) (syscall.WaitStatus, bool) {
	if state == nil {
		return 0, false
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	return status, ok
}

func (k *keeper) beginSync() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.syncing {
		return false
	}
	k.syncing = true
	return true
}

func (k *keeper) endSync() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.syncing = false
}

func isPipe(f *os.File) error {
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return errors.New("something else was passed")
	}
	return nil
}

// relay logs what the worker writes to stderr: so many lines of so many octets, and swallows the rest.
func (k *keeper) relay(r io.Reader) {
	lines := bufio.NewReaderSize(r, maxSyncLine)
	for n := 0; ; {
		line, more, err := lines.ReadLine()
		if err != nil {
			return
		}
		if n < maxSyncLines {
			k.Log.Warn("sync worker says", "line", string(line), "cut", more)
		}
		n++
		for more && err == nil {
			_, more, err = lines.ReadLine()
		}
	}
}
