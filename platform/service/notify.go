package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// What a process can tell the service manager that started it; see sd_notify(3).
const (
	Ready    = "READY=1"    // it does what it is for; after Reloading: that it has done so
	Stopping = "STOPPING=1" // it was asked to end, or has to
	Alive    = "WATCHDOG=1" // it looked, and everything in it works
)

// Status is one line for people, as systemctl status shows it.
func Status(text string) string {
	return "STATUS=" + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
}

// Reloading says that the configuration is being read again. Ready has to follow, whatever came of it.
func Reloading() string { return reloading() }

// Notify tells the service manager, in one message. Without one that wants to know it does nothing.
func Notify(states ...string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	fail := func(err error) error {
		return fmt.Errorf("service: tell the service manager at %q: %w", name, err)
	}
	if name[0] != '/' && name[0] != '@' {
		return fail(errors.New("it is neither a path nor an abstract socket"))
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fail(err)
	}
	_, err = c.Write([]byte(strings.Join(states, "\n")))
	if err := errors.Join(err, c.Close()); err != nil {
		return fail(err)
	}
	return nil
}

// Watchdog is the time within which the service manager wants to hear Alive, always again, or it ends this process;
// 0: it does not.
func Watchdog() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0 // meant for a parent of ours
	}
	n, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || n <= 0 || n > int64(time.Hour*24*365/time.Microsecond) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// lookEvery is the most that is between two looks. The first ones are sooner: most of what there is to tell happens then.
const (
	lookEvery = 5 * time.Second
	lookFirst = 500 * time.Millisecond
)

// Live looks again and again whether this process works, until ctx ends, and tells the service manager what look
// returned, and that it is alive while look returns no error. A look has a quarter of the watchdog's time; one that
// takes longer counts as failed, and the next begins only when it has returned. failed is told of each that failed.
// Where no service manager wants to know, Live returns at once.
func Live(ctx context.Context, look func(context.Context) (status string, err error), failed func(error)) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	every := lookEvery
	if w := Watchdog(); w > 0 {
		every = min(every, w/4)
	}
	last, wait := "", min(every, lookFirst)
	for {
		bounded, cancel := context.WithTimeout(ctx, every)
		status, err := look(bounded)
		late := bounded.Err()
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = late
		}
		var tell []string
		if err == nil {
			tell = append(tell, Alive)
		} else {
			status = "not well: " + err.Error()
			failed(err)
		}
		if status != last {
			tell = append(tell, Status(status))
			last = status
		}
		if err := Notify(tell...); len(tell) > 0 && err != nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(every, 2*wait)
	}
}

// Sockets returns the listening Unix sockets that the service manager bound for this process, by their paths, each to
// be had once: they are the caller's then. Anything else that was passed is closed, and named in an error beside them.
func Sockets() (map[string]*net.UnixListener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if err := os.Unsetenv(name); err != nil {
			return nil, fmt.Errorf("service: %w", err)
		}
	}
	if count == "" || pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxSockets {
		return nil, fmt.Errorf("service: LISTEN_FDS=%q is not a number up to %d", count, maxSockets)
	}
	return sockets(n)
}

// maxSockets bounds how many descriptors may be passed.
const maxSockets = 64
