package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/platform/localsock"
	"batchwarden/platform/peer"
)

// attest measures how long it takes to see who made a connection: the launcher's look at another process, on a
// connection that it has not seen before. The bound is in time, not a ratio, so the best tenth counts: what else the
// machine does is not in it. How much later the first answer on a connection comes, for that and for what goes to the
// launcher and back, is shown beside it.
func (c *calls) attest() error {
	attestor, err := peer.NewAttestor()
	if err != nil {
		return err
	}
	path := filepath.Join(filepath.Dir(c.Socket), "attest.sock")
	l, err := localsock.Listen(path, 0o666)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer l.Close()
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "the first answer on a connection, to later ones\tlater by")
	for _, of := range []struct {
		name string
		who  testbed.Account
		want peer.Want
	}{
		{"the user alone", c.Accounts.LSAM, peer.Want{}},
		{"the program", c.Accounts.Payroll, peer.Want{Program: true}},
		{"the program's sum", c.Accounts.Reports, peer.Want{SHA256: true}},
	} {
		var looks, more []time.Duration
		for i := range c.fresh + 1 {
			look, err := c.look(attestor, l, of.who, of.want)
			if err != nil {
				return fmt.Errorf("attest %s: %w", of.name, err)
			}
			late, err := c.lateness(of.who)
			if err != nil {
				return fmt.Errorf("attest %s: %w", of.name, err)
			}
			if i > 0 { // a program is read and summed once
				looks, more = append(looks, look), append(more, late)
			}
		}
		slices.Sort(looks)
		slices.Sort(more)
		c.add("attesting a new connection by "+of.name+", not the first", float64(looks[len(looks)/10])/float64(time.Microsecond), 100, "us")
		fmt.Fprintf(w, "  by %s\t%s\n", of.name, micro(more[len(more)/2]))
	}
	fmt.Fprintln(w, "\t")
	return w.Flush()
}

// look is one attestation of a connection that was just made.
func (c *calls) look(a *peer.Attestor, l *net.UnixListener, who testbed.Account, want peer.Want) (time.Duration, error) {
	near, err := c.DialTo(context.Background(), who, l.Addr().String())
	if err != nil {
		return 0, err
	}
	defer near.Close()
	far, err := l.AcceptUnix()
	if err != nil {
		return 0, err
	}
	defer far.Close()
	begun := time.Now()
	at, err := a.Attest(context.Background(), far, l.Addr().String(), want)
	took := time.Since(begun)
	switch {
	case err != nil:
		return 0, err
	case want.Program && at.Exe == "", want.SHA256 && at.SHA256 == "":
		return 0, fmt.Errorf("not attested: %s%s", at.NoExe, at.NoSHA256)
	}
	return took, nil
}

// lateness is how much longer the first answer on a connection takes than the second.
func (c *calls) lateness(who testbed.Account) (time.Duration, error) {
	conn, err := c.Dial(context.Background(), who)
	if err != nil {
		return 0, err
	}
	defer conn.Close() // all was said
	k := &kept{conn, make([]byte, 4096)}
	first, err := k.ask(c.question)
	if err != nil {
		return 0, err
	}
	later, err := k.ask(c.question)
	return first - later, err
}

// flood measures what one client who asks much more than his entry allows does
// to another.
func (c *calls) flood() error {
	quiet, err := c.figureOf(c.authorize)
	if err != nil {
		return err
	}
	loud := &figure{name: quiet.name, per: quiet.per, once: quiet.once}
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
					_, _ = k.ask(c.question) // most of them are refused
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
		room := make([]byte, 4096)
		for range c.idle {
			conn, err := dial()
			if err != nil {
				return err
			}
			c.closers = append(c.closers, func() error { return conn.Close() })
			if _, err := (&kept{conn, room}).ask(c.question); err != nil {
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
