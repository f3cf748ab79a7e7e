package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
)

// playWorker is the sync worker of the tests: without the role in its environment it could not be one, so it is a
// script that sets it; see worker.
func playWorker(args []string) error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	slices.Sort(groups)
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "a line for the log")
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"stdin": string(text), "args": args, "uid": os.Getuid(), "gid": os.Getgid(), "groups": groups, "cwd": cwd, "env": os.Environ(),
	})
}

// worker writes a script as the sync worker.
func worker(t *testing.T, text string) Config {
	t.Helper()
	needRoot(t)
	c := configure(t)
	c.SyncPath = script(t, c.StateDir+"-worker", "#!/bin/sh\n"+text, 0, 0o755)
	c.SyncArgs = []string{"--config", "x.yaml"}
	return c
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func TestSync(t *testing.T) {
	b := start(t, worker(t, "exec env "+roleEnv+"=worker "+program+" \"$@\""))
	in, give := pipe(t)
	take, out := pipe(t)
	if _, err := give.Write([]byte("the keys")); err != nil {
		t.Fatal(err)
	}
	_ = give.Close()
	if err := b.launcher.Sync(b.ctx(), in, out); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	var got struct {
		Stdin, Cwd string
		Args, Env  []string
		UID, GID   int
		Groups     []int
	}
	if err := json.NewDecoder(take).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Stdin != "the keys" || got.Cwd != "/" || got.UID != syncUID || got.GID != syncUID || !slices.Equal(got.Groups, []int{4300, 4401}) {
		t.Errorf("got %+v", got)
	}
	if !slices.Equal(got.Args, []string{"--config", "x.yaml"}) {
		t.Errorf("arguments %q", got.Args)
	}
	for _, e := range got.Env { // PWD and _ are the shell's own
		if !slices.Contains([]string{"PATH", "PWD", "_", roleEnv}, strings.SplitN(e, "=", 2)[0]) {
			t.Errorf("environment: %q", e)
		}
	}
}

func TestSyncFails(t *testing.T) {
	for text, want := range map[string]launch.SyncFailed{
		"exit 9":        {ExitCode: 9, Reason: "ended with exit code 9"},
		"kill -KILL $$": {ExitCode: -1, Reason: "was ended by signal KILL"},
	} {
		b := start(t, worker(t, text))
		in, _ := pipe(t)
		_, out := pipe(t)
		err := b.launcher.Sync(b.ctx(), in, out)
		if got, ok := errors.AsType[*launch.SyncFailed](err); !ok || *got != want {
			t.Errorf("%s: got %v, want %v", text, err, want)
		}
	}
	c := worker(t, "")
	c.SyncPath += "-missing"
	b := start(t, c)
	in, _ := pipe(t)
	_, out := pipe(t)
	refusal(t, b.launcher.Sync(b.ctx(), in, out), launch.CodeUnavailable, "cannot be started")
	file, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	refusal(t, b.launcher.Sync(b.ctx(), file, out), launch.CodeInvalid, "pipes")
}

// TestSyncEnds: the worker does not outlive whoever wanted it, and there is one at a time.
func TestSyncEnds(t *testing.T) {
	b := start(t, worker(t, "echo $$; sleep 60 & echo $!; wait"))
	for name, end := range map[string]func(context.CancelFunc){
		"the daemon's session ends": func(context.CancelFunc) { b.stopDaemon() },
		"nobody waits any more":     func(cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			in, _ := pipe(t)
			take, out := pipe(t)
			ctx, cancel := context.WithCancel(b.ctx())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- b.launcher.Sync(ctx, in, out) }()
			var worker, child int
			if _, err := fmt.Fscan(take, &worker, &child); err != nil {
				t.Fatal(err)
			}
			refusal(t, b.launcher.Sync(b.ctx(), in, out), launch.CodeOverloaded)
			end(cancel)
			if err := <-ended; err == nil {
				t.Error("it succeeded")
			}
			until := time.Now().Add(5 * time.Second)
			for (alive(worker) || alive(child)) && time.Now().Before(until) {
				time.Sleep(5 * time.Millisecond)
			}
			if alive(worker) || alive(child) {
				t.Error("it goes on")
				_ = unix.Kill(-worker, unix.SIGKILL)
			}
			b.stopDaemon()
			b.runDaemon()
		})
	}
}
