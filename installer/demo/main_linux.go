// Command demo shows batchwarden at work on this machine: a real server, real
// accounts, real jobs. It says what it does, with the command behind it, and
// checks what comes out. It leaves nothing behind.
//
// With -playground it does the same set-up and stays until Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"batchwarden/installer/testbed"
)

// innerEnv marks the process that does the work. The outer one only waits and
// removes what the inner one could not, however that ended.
const innerEnv = "BATCHWARDEN_DEMO_INNER"

func main() {
	testbed.Role()
	playground := flag.Bool("playground", false, "set everything up and stay until Ctrl-C")
	flag.Parse()
	if os.Getenv(innerEnv) == "" {
		os.Exit(outer(prefix(*playground)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := inner(ctx, *playground); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

// prefix begins the names of the accounts. The demo and the playground may run
// side by side.
func prefix(playground bool) string {
	if playground {
		return "bwplay"
	}
	return "bwdemo"
}

// outer runs the inner process, and looks after it.
func outer(prefix string) int {
	runtime.LockOSThread() // Pdeathsig watches the thread
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), innerEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGTERM, // without us it removes everything itself
		Setpgid:   true,            // Ctrl-C comes to it from us, once
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	pid := cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	for waiting := true; waiting; {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // it may have ended just now
		case err = <-ended:
			waiting = false
		}
	}
	if os.Geteuid() != 0 { // then nothing was made that could be left
		if err != nil {
			return 1
		}
		return 0
	}
	if removed := testbed.RemoveDead(prefix, pid); removed != nil {
		fmt.Fprintln(os.Stderr, "demo: removing what was left:", removed)
		err = removed
	}
	if left := testbed.Leftovers(prefix, pid); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "demo: left behind:\n  "+strings.Join(left, "\n  "))
		return 1
	}
	fmt.Println(dim("nothing is left behind: no account, process, cgroup, mount or file of ours (pid " + strconv.Itoa(pid) + " and its own)"))
	if err != nil {
		return 1
	}
	return 0
}

// inner sets a bed up, shows it, and closes it whatever happens.
func inner(ctx context.Context, playground bool) (err error) {
	if os.Geteuid() != 0 {
		if playground {
			return errors.New("the playground needs root, for its accounts and the launcher; run: sudo make playground")
		}
		return unprivileged(ctx)
	}
	bed, err := testbed.Prepare(testbed.Options{Prefix: prefix(playground), Interval: 30 * time.Second})
	if err != nil {
		return fmt.Errorf("demo: set-up: %w", err)
	}
	defer func() {
		if closing := bed.Close(); closing != nil && err == nil {
			err = fmt.Errorf("demo: clean-up: %w", closing)
		}
	}()
	if playground {
		return play(ctx, bed)
	}
	return newShow(ctx, bed, os.Stdout).all()
}
