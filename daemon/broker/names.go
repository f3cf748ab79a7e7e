package broker

import (
	"context"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/platform/launch"
)

// nameSoon is between the begin of a session and the question: it may start the resolver's helper, and who has been waiting
// for a password since the start comes first.
const nameSoon = 200 * time.Millisecond

// nameRetry is how long after a look for names that were not all found the next one follows.
const nameRetry = 30 * time.Second

// namesIn are the accounts and groups that the configuration names.
func namesIn(c *config.Config) (n launch.Names) {
	for i := range c.Clients {
		if m := &c.Clients[i].Match; m.User != "" {
			n.Users = append(n.Users, m.User)
		}
		if m := &c.Clients[i].Match; m.Group != "" {
			n.Groups = append(n.Groups, m.Group)
		}
	}
	n.Users = append(n.Users, c.Operators.Users...)
	n.Groups = append(n.Groups, c.Operators.Groups...)
	return n
}

// WatchNames has the launcher, which can ask the system's own resolver, say what the names of the configuration stand
// for: when begun says that there is a launcher, and again as long as some were not found. It ends with ctx.
func (b *Broker) WatchNames(ctx context.Context, begun <-chan struct{}) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-begun:
			again = time.After(nameSoon)
			continue
		case <-b.unnamed:
			again = time.After(nameRetry)
			continue
		case <-again:
		}
		again = nil
		if !b.resolveNames(ctx) {
			again = time.After(nameRetry)
		}
	}
}

// resolveNames reports whether all were found.
func (b *Broker) resolveNames(ctx context.Context) bool {
	c := b.Config()
	names := namesIn(c)
	if len(names.Users)+len(names.Groups) > launch.MaxNames {
		b.Log.Warn("too many names in the configuration for the system's resolver; the files were asked", "most", launch.MaxNames)
		return true
	}
	numbers, err := b.Launcher.Resolve(ctx, names)
	if err != nil {
		if ctx.Err() == nil {
			b.Log.Warn("the names of the configuration were not resolved", "err", err)
		}
		return false
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	next := *b.view.Load()
	if next.config != c {
		return false // another one has come into force meanwhile
	}
	next.callers = newCallers(c, numbers, next.callers)
	b.view.Store(&next)
	return len(numbers.Lost) == 0
}
