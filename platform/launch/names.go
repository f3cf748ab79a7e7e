package launch

import (
	"context"

	"batchwarden/platform/account"
)

// Names are accounts and groups of the host, by their names.
type Names struct {
	Users  []string `json:"users,omitempty"`
	Groups []string `json:"groups,omitempty"`
}

// Numbers are what the system's own resolver, LDAP and the like included, says that names stand for. A name that is not
// there was not found, or the resolver did not answer; Lost says which, in words.
type Numbers struct {
	Users  map[string]uint32 `json:"users,omitempty"`
	Groups map[string]uint32 `json:"groups,omitempty"`
	Lost   map[string]string `json:"lost,omitempty"` // by "user NAME" or "group NAME"
}

// In asks one resolver.
func (n Names) In(r account.Resolver) Numbers {
	found := Numbers{Users: map[string]uint32{}, Groups: map[string]uint32{}, Lost: map[string]string{}}
	for _, name := range n.Users {
		if a, err := r.Lookup(name); err != nil {
			found.Lost["user "+name] = err.Error()
		} else {
			found.Users[name] = a.UID
		}
	}
	for _, name := range n.Groups {
		if g, err := r.GroupByName(name); err != nil {
			found.Lost["group "+name] = err.Error()
		} else {
			found.Groups[name] = g.GID
		}
	}
	return found
}

// MaxNames is how many names one Resolve may ask for.
const MaxNames = 1024

// Resolve asks the launcher, which may start the resolver's helper, what names stand for.
func (l *Launcher) Resolve(ctx context.Context, n Names) (Numbers, error) {
	a, err := l.ask(ctx, Request{Call: CallResolve, Names: &n})
	if err != nil || a.Numbers == nil {
		return Numbers{}, err
	}
	return *a.Numbers, nil
}
