package nss

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"batchwarden/platform/account"
)

const (
	// maxPrograms is how many questions can be asked at a time. When that many hang, others wait, and fail in time.
	maxPrograms = 4
	maxName     = 256
	maxKept     = 1024
)

type resolver struct {
	local   *local
	path    string
	timeout time.Duration
	asking  chan struct{} // holds one for each question that is being asked

	mu     sync.Mutex // guards what follows
	idle   []*program
	busy   map[*program]bool
	kept   map[string]kept // by question
	closed bool
}

// kept is an answer of a moment ago.
type kept struct {
	answer []string
	until  time.Time
	files  [3]stamp
}

func newResolver(path string) *resolver {
	return &resolver{
		local: newLocal("/"), path: path, timeout: Timeout, asking: make(chan struct{}, maxPrograms),
		busy: map[*program]bool{}, kept: map[string]kept{},
	}
}

func (r *resolver) Lookup(name string) (account.Account, error) { return r.byName(name, true) }

func (r *resolver) Fresh(name string) (account.Account, error) { return r.byName(name, false) }

func (r *resolver) byName(name string, remembered bool) (account.Account, error) {
	what := "account " + strconv.Quote(name)
	if !valid(name) {
		return account.Account{}, fmt.Errorf("account: %s: %w", what, account.ErrMissing)
	}
	a, err := r.local.lookup(name, !remembered)
	if !errors.Is(err, errElsewhere) {
		return a, err
	}
	return r.account(what, err, remembered, "u", name)
}

func (r *resolver) ByUID(uid uint32) (account.Account, error) {
	a, err := r.local.byUID(uid)
	if !errors.Is(err, errElsewhere) {
		return a, err
	}
	number := strconv.FormatUint(uint64(uid), 10)
	if a, err = r.account("uid "+number, err, true, "i", number); err == nil && a.UID != uid {
		return account.Account{}, fmt.Errorf("account: uid %d: %w: the resolver says %q, which has uid %d", uid, account.ErrSilent, a.Name, a.UID)
	}
	return a, err
}

func (r *resolver) account(what string, why error, remembered bool, kind, key string) (account.Account, error) {
	var a account.Account
	answer, err := r.ask(remembered, kind, key)
	if err == nil {
		a, err = toAccount(answer)
	}
	if err != nil {
		return account.Account{}, fmt.Errorf("account: %s: %w (%w)", what, err, why)
	}
	// A source that does not list a group's members would make any group look like the account's own.
	a.OwnGroup = a.OwnGroup && r.local.own(a.Name, a.GID)
	return a, nil
}

func (r *resolver) GroupByName(name string) (account.Group, error) {
	what := "group " + strconv.Quote(name)
	if !valid(name) {
		return account.Group{}, fmt.Errorf("account: %s: %w", what, account.ErrMissing)
	}
	g, why := r.local.groupByName(name)
	if !errors.Is(why, errElsewhere) {
		return g, why
	}
	answer, err := r.ask(true, "g", name)
	if err == nil {
		answer, err = verdict(answer)
	}
	if err == nil {
		g, err = toGroup(answer)
	}
	if err != nil {
		return account.Group{}, fmt.Errorf("account: %s: %w (%w)", what, err, why)
	}
	return g, nil
}

// valid is false for what is nobody's name in any source, and would mean something else to some.
func valid(name string) bool {
	return name != "" && len(name) <= maxName && !strings.ContainsAny(name, ":\n\x00") && name[0] != '+' && name[0] != '-'
}

// ask gets the answer from the program, or a remembered one.
func (r *resolver) ask(remembered bool, kind, key string) ([]string, error) {
	until := time.Now().Add(r.timeout)
	files, err := r.local.stamps()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	k, ok := r.kept[kind+key]
	r.mu.Unlock()
	if remembered && ok && time.Now().Before(k.until) && k.files == files {
		return k.answer, nil
	}
	c, conf, err := r.local.conf.now()
	if err != nil {
		return nil, err
	}
	groups := c.members
	if kind == "g" {
		groups = c.groups
	}
	question := message(kind, key, c.accounts.String(), groups.String())
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case r.asking <- struct{}{}:
		defer func() { <-r.asking }()
	case <-timer.C:
		return nil, fmt.Errorf("%w: others have been waiting for it for %v", account.ErrSilent, r.timeout)
	}
	answer, err := r.put(question, conf, until)
	if err != nil {
		return nil, err
	}
	r.keep(kind+key, kept{answer, time.Now().Add(Remembered), files})
	return answer, nil
}

// put asks one of the programs. One that waited for a question may have ended meanwhile: then another is asked.
func (r *resolver) put(question []byte, conf stamp, until time.Time) ([]string, error) {
	for {
		p, err := r.take(conf)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", account.ErrSilent, err)
		}
		answer, err := p.ask(question, until)
		if err == nil {
			r.release(p)
			return answer, nil
		}
		again := p.used && !errors.Is(err, os.ErrDeadlineExceeded)
		r.drop(p)
		switch {
		case again:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, fmt.Errorf("%w within %v", account.ErrSilent, r.timeout)
		default:
			return nil, fmt.Errorf("%w: %s: %w", account.ErrSilent, r.path, err)
		}
	}
}

func (r *resolver) take(conf stamp) (*program, error) {
	r.mu.Lock()
	var old []*program
	var p *program
	for p == nil && len(r.idle) > 0 {
		last := r.idle[len(r.idle)-1]
		r.idle = r.idle[:len(r.idle)-1]
		if last.conf == conf {
			p = last
			r.busy[p] = true
		} else {
			old = append(old, last)
		}
	}
	closed := r.closed
	r.mu.Unlock()
	for _, o := range old {
		o.stop()
	}
	switch {
	case closed:
		return nil, os.ErrClosed
	case p != nil:
		return p, nil
	}
	p, err := start(r.path, conf)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy[p] = true
	if r.closed {
		_ = p.conn.Close() // asking fails at once, and then it is dropped
	}
	return p, nil
}

func (r *resolver) release(p *program) {
	r.mu.Lock()
	p.used = true
	delete(r.busy, p)
	closed := r.closed
	if !closed {
		r.idle = append(r.idle, p)
	}
	r.mu.Unlock()
	if closed {
		p.stop()
	}
}

func (r *resolver) drop(p *program) {
	r.mu.Lock()
	delete(r.busy, p)
	r.mu.Unlock()
	p.stop()
}

// keep remembers what was found. That something is missing, or nobody knows, is asked anew each time.
func (r *resolver) keep(question string, k kept) {
	if k.answer[0] != "found" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) >= maxKept {
		clear(r.kept)
	}
	r.kept[question] = k
}

func (r *resolver) close() error {
	r.mu.Lock()
	r.closed = true
	idle := r.idle
	r.idle = nil
	for p := range r.busy {
		_ = p.conn.Close() // whoever asks it finds out, and stops it
	}
	r.mu.Unlock()
	for _, p := range idle {
		p.stop()
	}
	return nil
}
