package broker

import (
	"context"
	"fmt"
	"strings"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
)

// asked is what systemd wants a credential for: it says so by the name that it
// binds its end of the connection to.
type asked struct {
	unit string // such as pay.service
	name string // the credential's id, which is the batch user's own name
}

// Credential answers systemd, which fetches a password for a service that it is
// about to start. at is what was attested of the connection, or failed is why
// that could not be done. The password is decided about, audited and lent to
// deliver as in Retrieve; realm, subject and object are those of the client
// entry that names the unit. Errors are as in Retrieve, too; systemd says that
// it was systemd without a doubt who asked.
func (b *Broker) Credential(ctx context.Context, at peer.Attested, failed error, deliver Deliver) (systemd bool, err error) {
	c := caller{peer: at, user: at.User, attested: failed == nil, view: b.view.Load()}
	want, systemd, err := askedFor(&at, failed)
	if err == nil {
		c.client = c.view.config.CredentialClient(want.unit)
	}
	q := ask{batchUser: want.name, ownName: true, use: toRetrieve}
	if e := c.client; e != nil {
		q.realm, q.object = e.Realms[0], e.Object
		q.subject = wire.Subject{User: e.Subject.User, Roles: e.Subject.Roles, By: e.Subject.By}
	}
	record := b.record(audit.Retrieve, &c, q.realm, q.subject, want.name)
	switch {
	case err != nil:
		return systemd, b.refuse(record, wire.NewProblem(wire.CallerUnknown, err.Error()))
	case c.client == nil:
		return systemd, b.refuse(record, wire.NewProblem(wire.CallerUnknown, fmt.Sprintf("no client entry has match.credential_unit %q", want.unit)))
	}
	if refusal := c.mayDo(config.MayRetrieve); refusal != nil {
		return systemd, b.refuse(record, refusal)
	}
	return systemd, b.release(ctx, &c, q, record, deliver)
}

// askedFor reads what systemd asks for. Only the system's own service manager
// is answered: users' managers bind names of the same form, but theirs is not
// root, and what root's starts belongs to no system service. Where systemd does
// not run the system there is nothing to hold a name against, and sure is
// false: root says what it wants, and could take it.
func askedFor(at *peer.Attested, failed error) (want asked, sure bool, err error) {
	if failed != nil {
		return asked{}, false, failed
	}
	if at.UID != 0 {
		return asked{}, false, fmt.Errorf("uid %d asked for a credential; only the system's service manager may", at.UID)
	}
	want, ok := parseName(at.Name)
	if !ok {
		return asked{}, false, fmt.Errorf("the other end is bound to %q, which is not how systemd asks for a service's credential", brief(at.Name))
	}
	if at.Unit != want.unit && (at.Systemd || at.Unit != "") {
		return want, false, fmt.Errorf("a credential for unit %q was asked for by process %d, which belongs to %s", want.unit, at.PID, belongs(at.Unit))
	}
	return want, at.Systemd, nil
}

func belongs(unit string) string {
	if unit == "" {
		return "no system service"
	}
	return fmt.Sprintf("unit %q", unit)
}

// parseName reads the name that systemd binds its end to, as systemd.exec(5)
// has it for LoadCredential=: a NUL, a random number in hex, "/unit/", the
// unit, "/" and the credential's id.
func parseName(bound string) (asked, bool) {
	rest, abstract := strings.CutPrefix(bound, "\x00")
	random, rest, _ := strings.Cut(rest, "/unit/")
	unit, id, _ := strings.Cut(rest, "/")
	switch {
	case !abstract || len(random) < 1 || len(random) > 16 || !only(random, "0123456789abcdef"): // %x of 64 bits
	case !strings.HasSuffix(unit, ".service"):
	case len(id) < 1 || len(id) > maxName || !only(id, letters+"._-"):
	default:
		return asked{unit: unit, name: id}, true
	}
	return asked{}, false
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// only reports whether the text has no other characters.
func only(text, characters string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(characters, r) })
}
