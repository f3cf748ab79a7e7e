package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"batchwarden/installer/testbed"
)

// attest measures how much longer the first answer on a connection takes than
// a later one, when the connection was accepted before: that is the launcher's
// look at who made it, and what the service remembers. The bound is in time,
// not a ratio, so the best tenth counts: what else the machine does is not in it.
func (c *calls) attest() error {
	request := handwritten()
	for _, of := range []struct {
		name string
		who  testbed.Account
	}{
		{"the user alone", c.Accounts.LSAM}, {"the program", c.Accounts.Payroll}, {"the program's sum", c.Accounts.Reports},
	} {
		var first, later []time.Duration
		for i := range c.fresh + 1 {
			conn, err := c.Dial(context.Background(), of.who)
			if err != nil {
				return err
			}
			k := &kept{conn, make([]byte, 4096)}
			one, err := k.ask(request)
			var two time.Duration
			if err == nil {
				two, err = k.ask(request)
			}
			_ = conn.Close() // all was said
			if err != nil {
				return fmt.Errorf("attest %s: %w", of.name, err)
			}
			if i == 0 {
				continue // a program is read and summed once
			}
			first, later = append(first, one), append(later, two)
		}
		slices.Sort(first)
		slices.Sort(later)
		c.add("attesting a new connection by "+of.name+", not the first", float64(first[len(first)/10]-later[len(later)/10])/float64(time.Microsecond), 100, "us")
	}
	return nil
}

// flood measures what one client who asks much more than his entry allows does
// to another.
func (c *calls) flood() error {
	quiet, err := c.figureOf(c.authorize)
	if err != nil {
		return err
	}
	loud := &figure{name: quiet.name, per: quiet.per, once: quiet.once}
	request := handwritten()
	flooders := make([]*kept, c.callers)
	for i := range flooders {
		conn, err := c.Dial(context.Background(), c.Accounts.Stranger)
		if err != nil {
			return err
		}
		defer conn.Close()
		flooders[i] = &kept{conn, make([]byte, 4096)}
	}
	if err := quiet.measure(c.per); err != nil {
		return err
	}
	quiet.took = nil
	for range c.turns {
		if err := quiet.measure(10 * c.per); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{}, len(flooders))
		for _, k := range flooders {
			go func() { // ends with ctx
				for ctx.Err() == nil {
					_, _ = k.ask(request) // most of them are refused
				}
				ended <- struct{}{}
			}()
		}
		err := loud.measure(10 * c.per)
		cancel()
		for range flooders {
			<-ended
		}
		if err != nil {
			return err
		}
	}
	c.add(fmt.Sprintf("authorize while another client floods on %d connections, to without", len(flooders)), over(loud, quiet), 1.2, "times")
	return nil
}

// idling measures what connections cost on which nothing is said any more.
func (c *calls) idling() error {
	bareBefore, err := resident(c.barePID)
	if err != nil {
		return err
	}
	oursBefore, err := c.ours()
	if err != nil {
		return err
	}
	ask, err := c.figureOf(c.authorize)
	if err != nil {
		return err
	}
	reference, err := c.figureOf(c.bare)
	if err != nil {
		return err
	}
	busy := rounds{number: max(2, c.rounds/3)}
	if err := busy.run([]*figure{reference, ask}); err != nil {
		return err
	}
	before := over(ask, reference)
	fds, err := c.descriptors()
	if err != nil {
		return err
	}
	open := func(dial func() (net.Conn, error)) error {
		room, request := make([]byte, 4096), handwritten()
		for range c.idle {
			conn, err := dial()
			if err != nil {
				return err
			}
			c.closers = append(c.closers, func() error { return conn.Close() })
			if _, err := (&kept{conn, room}).ask(request); err != nil {
				return err
			}
		}
		return nil
	}
	if err := open(func() (net.Conn, error) { return net.Dial("unix", c.bareSocket) }); err != nil {
		return err
	}
	if err := open(func() (net.Conn, error) { return c.Dial(context.Background(), c.Accounts.Payroll) }); err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // for what is only in passing
	bareAfter, err := resident(c.barePID)
	if err != nil {
		return err
	}
	oursAfter, err := c.ours()
	if err != nil {
		return err
	}
	n := float64(c.idle)
	each := (bareAfter - bareBefore) / n
	c.add(fmt.Sprintf("memory of %d idle connections, to a bare handler's (%.1f KiB each)", c.idle, each), (oursAfter-oursBefore)/n/each, 1.3, "times")
	after, err := c.descriptors()
	if err != nil {
		return err
	}
	c.add("descriptors of an idle connection, in daemon and launcher", float64(after-fds)/n, 1, "")
	ask.took, reference.took = nil, nil
	if err := busy.run([]*figure{reference, ask}); err != nil {
		return err
	}
	c.add(fmt.Sprintf("authorize beside %d idle connections, to without (each to a bare handler without)", c.idle), over(ask, reference)/before, 1.2, "times")
	return nil
}

// ours is what daemon and launcher hold, in KiB.
func (c *calls) ours() (float64, error) {
	daemon, err := resident(c.Daemon.PID())
	if err != nil {
		return 0, err
	}
	launcher, err := resident(c.Launcher.PID())
	return daemon + launcher, err
}

func resident(pid int) (kib float64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	_, err = fmt.Sscan(rest, &kib)
	return kib, err
}

// descriptors counts what daemon and launcher have open. One that pins a
// process is an error: there is none on a connection that rests.
func (c *calls) descriptors() (n int, err error) {
	for _, pid := range []int{c.Daemon.PID(), c.Launcher.PID()} {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		open, err := os.ReadDir(dir)
		if err != nil {
			return 0, err
		}
		for _, fd := range open {
			if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.Contains(to, "pidfd") {
				return 0, fmt.Errorf("process %d keeps %s", pid, to)
			}
		}
		n += len(open)
	}
	return n, nil
}
