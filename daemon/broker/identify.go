package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

// attestWait bounds how long a caller's first request waits for the launcher
// to look at him: the sum of a large program takes its time, once.
const attestWait = peer.SumWait + 5*time.Second

// entry is a client entry with the names of its match looked up.
type entry struct {
	client  *config.Client
	uid     *uint32 // nil: any
	gid     *uint32
	lost    string // why the entry matches nobody: a name could not be found
	allowed *allowance
}

// identify says who is at the other end of the connection and finds its client
// entry, in file order. The launcher is asked once for a connection: what it
// says is kept with it.
//
// Without the launcher the socket alone tells who is asking: then entries that
// want to know the program match nobody, and nothing is kept.
func (b *Broker) identify(ctx context.Context, p *peer.Connection) caller {
	v := b.view.Load()
	if last, _ := p.Memo.Load().(*met); last != nil && last.by == v.callers {
		return last.caller.in(v)
	}
	return b.identifyBy(ctx, p, peer.Want{}, false)
}

// in is the caller of a request for which the view is in force.
func (c caller) in(v *view) caller {
	c.view = v
	return c
}

// identifyAfresh is identify for what must not rest on an earlier look.
func (b *Broker) identifyAfresh(ctx context.Context, p *peer.Connection) caller {
	return b.identifyBy(ctx, p, peer.Want{}, true)
}

// met is what is kept with a connection.
type met struct {
	by     *callers // others have to match again
	want   peer.Want
	caller caller
}

// identifyBy finds out who is asking, and beside what the entries want to know also more. A look takes its time, and what
// is in force may be another thing afterwards: then he is held against that.
func (b *Broker) identifyBy(ctx context.Context, p *peer.Connection, more peer.Want, afresh bool) caller {
	for {
		v := b.view.Load()
		want := v.callers.want(&p.Peer)
		want.Program = want.Program || more.Program
		again := afresh && (want.Program || want.SHA256) // else the kernel's word is all there is, and it stays
		c := b.look(ctx, v.callers, p, want, again)
		if now := b.view.Load(); now.callers == v.callers {
			return c.in(now)
		}
		afresh = false
	}
}

// look holds the peer against the entries. What the launcher said of him at an earlier look is good for other entries too.
func (b *Broker) look(ctx context.Context, cs *callers, p *peer.Connection, want peer.Want, afresh bool) caller {
	last, _ := p.Memo.Load().(*met)
	if last != nil && covers(last.want, want) && !afresh {
		if last.by == cs {
			return last.caller
		}
		if last.caller.refused == nil {
			c := cs.match(caller{peer: last.caller.peer, user: last.caller.user, attested: true})
			p.Memo.Store(&met{by: cs, want: last.want, caller: c})
			return c
		}
	}
	if last != nil {
		want.Started = last.caller.peer.Started
		want.Program, want.SHA256 = want.Program || last.want.Program, want.SHA256 || last.want.SHA256
	}
	c := caller{peer: peer.Attested{Peer: p.Peer}}
	ctx, cancel := context.WithTimeout(ctx, attestWait)
	defer cancel()
	at, err := b.Launcher.Attest(ctx, p.UnixConn, want)
	var refused *launch.Refused
	switch {
	case err == nil:
		c.peer, c.user, c.attested = at, at.User, true
	case errors.As(err, &refused) && refused.Code == launch.CodeUnavailable:
		if a, err := account.ByUID(p.UID); err == nil {
			c.user = a.Name
		}
		return cs.match(c)
	case ctx.Err() != nil || refused != nil && refused.Code == launch.CodeOverloaded:
		c.refused = overloaded("the launcher is too busy to say who is asking", time.Second)
		return c
	case refused != nil && refused.Code == launch.CodeCaller:
		c.refused = wire.NewProblem(wire.CallerUnknown, refused.Reason)
	default:
		b.Log.Error("the launcher could not attest a caller", "uid", p.UID, "pid", p.PID, "err", err)
		c.refused = wire.NewProblem(wire.CallerUnknown, "the system could not attest this connection")
		return c
	}
	if c.refused == nil {
		c = cs.match(c)
	}
	want.Started = 0
	p.Memo.Store(&met{by: cs, want: want, caller: c})
	return c
}

// covers reports whether one look has found out all that the other wants to.
func covers(had, want peer.Want) bool {
	return (had.Program || had.SHA256 || !want.Program) && (had.SHA256 || !want.SHA256)
}

// want is what has to be known of a peer's program to tell which entry
// matches; nothing when its user and groups decide that.
func (cs *callers) want(p *peer.Peer) (w peer.Want) {
	for i := range cs.entries {
		e := &cs.entries[i]
		if !e.fits(p) {
			continue
		}
		m := &e.client.Match
		if !m.Attested() {
			break // this one matches at the latest
		}
		w.Program = true
		w.SHA256 = w.SHA256 || m.SHA256 != ""
	}
	return w
}

// stranger reports that no entry can match the peer, whatever it runs.
func (cs *callers) stranger(p *peer.Peer) bool {
	return !cs.operates(p) && !slices.ContainsFunc(cs.entries, func(e entry) bool { return e.fits(p) })
}

// match finds the first entry whose every condition holds.
func (cs *callers) match(c caller) caller {
	c.operator = cs.operates(&c.peer.Peer)
	c.looked = nil
	for i := range cs.entries {
		e := &cs.entries[i]
		wrong := e.wrongUser(&c.peer.Peer)
		if wrong == "" {
			wrong = e.wrongProgram(&c)
		}
		c.looked = append(c.looked, wire.Match{Client: e.client.Name, Matched: wrong == "", Reason: wrong})
		if wrong == "" {
			c.client, c.allowed = e.client, e.allowed
			break
		}
	}
	return c
}

// fits reports whether the entry's user and group hold.
func (e *entry) fits(p *peer.Peer) bool {
	return e.lost == "" && e.client.Match.CredentialUnit == "" && (e.uid != nil || e.gid != nil) &&
		(e.uid == nil || *e.uid == p.UID) && (e.gid == nil || slices.Contains(p.Groups, *e.gid))
}

// wrongUser is what of the entry's user and group does not hold; "" when all does.
func (e *entry) wrongUser(p *peer.Peer) string {
	m := &e.client.Match
	switch {
	case e.lost != "":
		return e.lost
	case m.CredentialUnit != "" || e.uid == nil && e.gid == nil:
		return "it is for a unit's credential, not for connections"
	case e.uid != nil && *e.uid != p.UID:
		return fmt.Sprintf("user: uid %d is not %s (%d)", p.UID, m.User, *e.uid)
	case e.gid != nil && !slices.Contains(p.Groups, *e.gid):
		return fmt.Sprintf("group: groups %v are without %s (%d)", p.Groups, m.Group, *e.gid)
	}
	return ""
}

// wrongProgram is what of the entry's exe, sha256 and unit does not hold.
func (e *entry) wrongProgram(c *caller) string {
	m, p := &e.client.Match, &c.peer
	if !c.attested && m.Attested() {
		return "the entry wants to know the program, and the launcher, which alone can look at it, does not answer"
	}
	switch {
	case m.Exe != "" && p.Exe == "":
		return "exe: " + unknown(p.NoExe)
	case m.Exe != "" && m.Exe != p.Exe:
		return fmt.Sprintf("exe: %q is not %q", p.Exe, m.Exe)
	case m.SHA256 != "" && p.SHA256 == "":
		return "sha256: " + unknown(p.NoSHA256)
	case m.SHA256 != "" && m.SHA256 != p.SHA256:
		return fmt.Sprintf("sha256: %s is not %s", p.SHA256, m.SHA256)
	case m.Unit != "" && p.Unit == "":
		return fmt.Sprintf("unit: the process belongs to no system service, so not to %q", m.Unit)
	case m.Unit != "" && m.Unit != p.Unit:
		return fmt.Sprintf("unit: %q is not %q", p.Unit, m.Unit)
	}
	return ""
}

func unknown(why string) string {
	if why == "" {
		return "it is not known"
	}
	return "it is not known: " + why
}

// why says in a sentence why no entry matched.
func (c *caller) why() string {
	text := fmt.Sprintf("none of %d client entries matches uid %d (%s), groups %v", len(c.looked), c.peer.UID, c.user, c.peer.Groups)
	if len(c.looked) == 0 {
		text = "there are no client entries"
	}
	return text + "; batchwarden whoami says of each why not"
}

// Whoami tells a caller what the system attested and what the configuration
// makes of it. It is for everybody: whoever is refused has to be able to see why.
func (b *Broker) Whoami(ctx context.Context, p *peer.Connection) wire.Whoami {
	c := b.identifyBy(ctx, p, peer.Want{Program: true}, false)
	w := wire.Whoami{
		Peer:     c.wirePeer(),
		Operator: c.operator, Entries: c.looked, Version: b.Version, API: wire.API, Features: b.features(),
	}
	switch refusal := c.known(); {
	case c.refused != nil:
		w.Reason = refusal.Detail
	case c.client == nil:
		w.Reason = c.why()
	default:
		w.Client, w.May, w.Realms = c.client.Name, c.client.May, c.client.Realms
	}
	return w
}

// wirePeer is who the system says is asking.
func (c *caller) wirePeer() wire.Peer {
	at := &c.peer
	return wire.Peer{
		PID: at.PID, UID: at.UID, GID: at.GID, Groups: at.Groups, User: c.user, Attested: c.attested,
		Exe: at.Exe, NoExe: at.NoExe, SHA256: at.SHA256, NoSHA256: at.NoSHA256, Unit: at.Unit,
	}
}
