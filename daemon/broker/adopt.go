package broker

import (
	"context"
	"maps"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

// resolveWait bounds how long a new configuration waits for the system's resolver to know its names.
const resolveWait = 5 * time.Second

// Adopt puts another configuration into force, whole: a request that begins when Adopt has returned is served by it, one
// that has begun before by the one that was in force then. Connections that are open are held against the new client
// entries at their next request.
func (b *Broker) Adopt(ctx context.Context, c *config.Config) {
	numbers, all := b.numbersOf(ctx, c)
	b.changing.Lock()
	defer b.changing.Unlock()
	old := b.view.Load()
	b.enact(old, &view{config: c, callers: newCallers(c, numbers, old.callers), known: old.known})
	if !all {
		select {
		case b.unnamed <- struct{}{}:
		default: // they will be asked for anyway
		}
	}
}

// numbersOf is what the names of a configuration stand for, and whether nothing is gained by asking again. Where the
// launcher cannot say, this host's files do, and of others what was found for the configuration before.
func (b *Broker) numbersOf(ctx context.Context, c *config.Config) (n launch.Numbers, all bool) {
	names := namesIn(c)
	if len(names.Users)+len(names.Groups) <= launch.MaxNames {
		ctx, cancel := context.WithTimeout(ctx, resolveWait)
		defer cancel()
		numbers, err := b.Launcher.Resolve(ctx, names)
		if err == nil {
			return numbers, len(numbers.Lost) == 0
		}
		b.Log.Warn("the names of the configuration were not resolved; the files are asked", "err", err)
	}
	n = names.In(account.System())
	was := b.view.Load().callers.names
	n.Users, n.Groups = both(was.Users, n.Users), both(was.Groups, n.Groups)
	return n, false
}

// both are the entries of the two, those of the second where they differ.
func both(a, b map[string]uint32) map[string]uint32 {
	all := maps.Clone(b)
	for name, n := range a {
		if _, known := all[name]; !known {
			all[name] = n
		}
	}
	return all
}

// MayReload says who the operator is that wants the configuration read again. Everybody else is refused, which is written
// down.
func (b *Broker) MayReload(ctx context.Context, p *peer.Connection) (*audit.Peer, error) {
	c := b.identify(ctx, p)
	record := b.record(audit.Reload, &c, "", wire.Subject{}, "")
	record.Operator, record.Subject = c.operator, nil
	if refusal := c.isOperator(); refusal != nil {
		return nil, b.refuse(record, refusal)
	}
	return record.Peer, nil
}

// Tell makes what became of a configuration an event, for operators.
func (b *Broker) Tell(kind, detail string) {
	b.events.add(wire.Event{Type: kind, Detail: brief(detail)})
}

// ConfigAmiss makes what is wrong with the configuration's files a part of the status.
func (b *Broker) ConfigAmiss(problems []wire.Finding) { b.amiss.Store(&problems) }

func (b *Broker) configAmiss() []wire.Finding {
	if problems := b.amiss.Load(); problems != nil {
		return *problems
	}
	return nil
}
