package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/daemon/doctor"
	"batchwarden/ipc/wire"
	"batchwarden/platform/safefile"
	"batchwarden/vault/errand"
	"batchwarden/vault/probe"
)

// What is near enough to be told, and how far clocks may differ.
const (
	soon      = 7 * 24 * time.Hour
	clockRoom = time.Minute
)

// vault looks at the server from here, as anybody can.
func (d *diagnosis) vault(context.Context) []doctor.Check {
	const reach, secure, health, clock = "vault.reachable", "vault.tls", "vault.health", "clock"
	if d.config == nil {
		return unconfigured(reach, secure, health, clock)
	}
	v, f := d.config.Vault, d.found()
	later := func(why string, names ...string) (checks []doctor.Check) {
		for _, n := range names {
			checks = append(checks, unknown(n, why, "mend that first"))
		}
		return checks
	}
	switch {
	case f.CA != nil && errors.Is(f.CA, fs.ErrPermission):
		return append([]doctor.Check{unknown(reach, oneLine(f.CA), asRoot)}, later("vault.ca_file cannot be read by this user", secure, health, clock)...)
	case f.CA != nil:
		return append([]doctor.Check{unknown(reach, "it was not tried, as vault.ca_file cannot be used", "mend that first"),
			problem(secure, "vault.ca_file: "+oneLine(f.CA), "put the certificate of the CA that issued the server's, in PEM form, into "+v.CAFile)},
			later("vault.ca_file cannot be used", health, clock)...)
	case f.Dial != nil:
		return append([]doctor.Check{problem(reach, v.Address+": "+oneLine(f.Dial)+". "+d.untilStale(), reachHint(v.Address, f.Dial))},
			later("Vault does not answer", secure, health, clock)...)
	}
	if probe.Late(f.TLS) || probe.Late(f.Answer) {
		return append([]doctor.Check{problem(reach, v.Address+" takes connections and does not answer. "+d.untilStale(), "is the server overloaded or stopped? curl -sS "+v.Address+"/v1/sys/health")},
			later("Vault does not answer", secure, health, clock)...)
	}
	checks := []doctor.Check{ok(reach, v.Address+" answers"), tlsCheck(secure, v, f, d.app.now())}
	switch {
	case f.TLS != nil:
		checks = append(checks, later("who answers is not proved", health)...)
	case f.Answer != nil:
		checks = append(checks, problem(health, v.Address+": "+oneLine(f.Answer), "is vault.address that of a Vault server? curl -sS "+v.Address+"/v1/sys/health"))
	case !f.Health.Initialized:
		checks = append(checks, problem(health, "the server is not initialized", "vault operator init, by an administrator of Vault"))
	case f.Health.Sealed:
		checks = append(checks, problem(health, "the server is sealed: it answers no question. "+d.untilStale(), "vault operator unseal, by an administrator of Vault"))
	default:
		checks = append(checks, ok(health, strings.TrimSpace("unsealed "+f.Health.Version)))
	}
	return append(checks, d.clock(clock, f))
}

// untilStale says how long what was synced stays in force.
func (d *diagnosis) untilStale() string {
	s := d.status()
	if s.status == nil || s.status.Sync.LastSuccess.IsZero() {
		return "How long what was synced stays in force only the service knows"
	}
	last := s.status.Sync.LastSuccess
	say := func(most time.Duration) string {
		if left := last.Add(most).Sub(d.app.now()); left > 0 {
			return "for " + span(left) + " more"
		}
		return "no longer"
	}
	return fmt.Sprintf("What was synced %s stays in force: batch users %s, policies %s", d.app.when(last), say(d.config.Sync.MaxStale), say(d.config.Sync.PolicyMaxStale))
}

func reachHint(address string, err error) string {
	host := address
	if u, bad := url.Parse(address); bad == nil {
		host = u.Hostname()
	}
	if _, is := errors.AsType[*net.DNSError](err); is {
		return "getent hosts " + host + "; mend vault.address or the name service"
	}
	return "is the server up, and the way to it open? curl -sS " + address + "/v1/sys/health; mend vault.address, the firewall, or the server"
}

func tlsCheck(name string, v config.Vault, f *probe.Found, now time.Time) doctor.Check {
	if f.Plain {
		return note(name, "none: "+v.Address+" does not leave this machine")
	}
	if f.TLS == nil {
		until := f.Chain[0].NotAfter
		for _, c := range f.Chain {
			if c.NotAfter.Before(until) {
				until = c.NotAfter
			}
		}
		reason := "the server's certificate and those above it are good until " + until.UTC().Format(time.DateOnly)
		if until.Sub(now) < soon {
			return problem(name, reason+", which is in "+span(until.Sub(now)), "renew it, by an administrator of Vault")
		}
		return ok(name, reason)
	}
	var (
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
	)
	about := ""
	if len(f.Presented) > 0 {
		c := f.Presented[0]
		about = fmt.Sprintf(" (issued by %q, good from %s to %s)", c.Issuer, c.NotBefore.UTC().Format(time.DateOnly), c.NotAfter.UTC().Format(time.DateOnly))
	}
	ca := cmp.Or(v.CAFile, "the system's certificates")
	switch {
	case errors.As(f.TLS, &authority):
		return problem(name, "the server's certificate is not of a CA in "+ca+about,
			"put the issuing CA's certificate into vault.ca_file; openssl s_client -showcerts -connect "+strings.TrimPrefix(v.Address, "https://")+" shows what the server sends")
	case errors.As(f.TLS, &invalid) && invalid.Reason == x509.Expired && f.Dated && f.Ahead.Abs() > clockRoom:
		return problem(name, fmt.Sprintf("the server's certificate is not good now%s, by a clock that differs from the server's by %s", about, span(f.Ahead.Abs().Round(time.Second))), setClock)
	case errors.As(f.TLS, &invalid) && invalid.Reason == x509.Expired:
		return problem(name, "a certificate of the server has expired, or is not yet good"+about, "renew it, by an administrator of Vault")
	case errors.As(f.TLS, &host):
		return problem(name, "the server's certificate is for another name: "+oneLine(f.TLS), "mend vault.address, or set vault.server_name to a name in the certificate")
	}
	return problem(name, oneLine(f.TLS)+about, "is vault.address the TLS port of a Vault server?")
}

const setClock = "timedatectl set-ntp true, or chronyc makestep; timedatectl shows whether it worked"

// clock holds our clock against Vault's, and against what the service remembers.
func (d *diagnosis) clock(name string, f *probe.Found) doctor.Check {
	if s := d.status(); s.status != nil {
		for _, p := range s.status.Problems {
			if strings.HasPrefix(p.Code, "clock.") {
				return problem(name, p.Detail, setClock)
			}
		}
	}
	switch {
	case !f.Dated:
		return unknown(name, "the server says no time", "timedatectl shows whether the clock is set by the network")
	case f.Ahead.Abs() > clockRoom:
		which := "ahead of"
		if f.Ahead < 0 {
			which = "behind"
		}
		return problem(name, fmt.Sprintf("this machine's clock is %s %s Vault's", span(f.Ahead.Abs().Round(time.Second)), which), setClock+"; if this clock is right, mend the server's")
	case f.TLS != nil:
		return unknown(name, "who tells the time is not proved", "mend vault.tls first")
	}
	return ok(name, "it agrees with Vault's")
}

// loginFiles are what the sync worker logs in with: there, and nobody else's to read. They are opened and not read: a
// wrapping token in one of them must be used by nobody else.
func (d *diagnosis) loginFiles(context.Context) []doctor.Check {
	const name = "vault.files"
	if d.config == nil {
		return unconfigured(name)
	}
	if !d.root {
		return []doctor.Check{unknown(name, "what the machine logs in with only root and the sync worker's user may see", asRoot)}
	}
	worker, err := d.accounts.Lookup(d.config.Users.Sync)
	if err != nil {
		return []doctor.Check{unknown(name, oneLine(err), "mend users.sync first")}
	}
	a := d.config.Vault.Auth
	var faults, seen []string
	for _, of := range []struct {
		path   string
		secret bool
	}{{a.RoleIDFile, false}, {a.SecretIDFile, true}, {a.CertFile, false}, {a.KeyFile, true}, {a.JWTFile, true}, {a.TokenFile, true}} {
		if of.path == "" {
			continue
		}
		seen = append(seen, of.path)
		rules := safefile.Rules{Owners: []uint32{worker.UID}}
		if of.secret {
			rules.Mode = 0o640
		}
		f, err := safefile.Open(of.path, rules)
		if err == nil {
			err = f.Close()
		}
		if err != nil && !(of.path == a.SecretIDFile && a.SecretIDWrapped && errors.Is(err, fs.ErrNotExist)) { // gone once it was used
			faults = append(faults, oneLine(err))
		}
	}
	if len(faults) > 0 {
		return []doctor.Check{problem(name, strings.Join(faults, "; "), fmt.Sprintf("chown %s FILE; chmod 0400 FILE; or write it anew: batchwarden admin machine add %s --out DIR", d.config.Users.Sync, d.config.Machine))}
	}
	return []doctor.Check{ok(name, strings.Join(seen, ", "))}
}

// stages are the codes of a sync's outcome in the order in which it gets there.
var stages = [][]string{
	{errand.Setup},
	{errand.Unreachable},
	{errand.TLS},
	{errand.Sealed, errand.Limited, errand.Error, errand.Answer},
	{errand.LoginRefused, errand.WrappedUsed, errand.Identity},
	{errand.Missing, errand.Forbidden},
}

func stageOf(code string) int {
	return slices.IndexFunc(stages, func(codes []string) bool { return slices.Contains(codes, code) })
}

// login says what the last sync tells of login, rights, scopes and token.
func (d *diagnosis) login(context.Context) []doctor.Check {
	const login, policy, scopes, token, secret = "vault.login", "vault.policy", "vault.scopes", "vault.token", "vault.secret_id"
	s := d.status()
	if s.status == nil {
		return append(s.unsaid(login, policy, scopes, token), d.secret(secret, s))
	}
	machine, y := s.status.Machine, s.status.Sync
	by := func(name, good, mend string, codes ...string) doctor.Check {
		stage := stageOf(codes[0])
		switch at := stageOf(y.Outcome); {
		case y.Outcome == errand.Setup && (d.config == nil || d.unsafe != ""):
			return unknown(name, "the sync worker reads the same configuration, and went no further", "mend the configuration first")
		case slices.Contains(codes, y.Outcome):
			return problem(name, y.Detail, mend)
		case y.Outcome != "ok" && at < 0, at >= 0 && at <= stage:
			return unknown(name, "the last sync did not get that far: "+trouble(y), "batchwarden sync, once that is mended")
		}
		return ok(name, good+d.app.when(y.LastAttempt))
	}
	checks := []doctor.Check{
		by(login, "the last sync was let in, ", "batchwarden admin machine add "+machine+" --out DIR writes what the machine logs in with anew; put it where vault.auth says; then batchwarden sync",
			errand.LoginRefused, errand.WrappedUsed, errand.Identity, errand.Setup),
		by(policy, "the last sync was allowed all that it read, ", "batchwarden admin init writes the machines' Vault policy anew, and batchwarden admin machine add "+machine+" gives this machine its own; then batchwarden sync",
			errand.Forbidden),
		by(scopes, "all scopes were read, ", "is vault.mount right? batchwarden admin init makes it; then batchwarden sync",
			errand.Missing),
	}
	if c := &checks[2]; c.Result == doctor.OK && y.Detail != "" && s.status.BatchUsers.Total == 0 {
		*c = problem(scopes, y.Detail, "batchwarden admin machine add "+machine+" takes it in again; then batchwarden sync")
	}
	return append(checks, d.token(token, y), d.secret(secret, s))
}

func (d *diagnosis) token(name string, y wire.Sync) doctor.Check {
	left := y.TokenExpires.Sub(d.app.now())
	byFile := d.config != nil && d.config.Vault.Auth.Method == config.AuthTokenFile
	switch {
	case y.TokenExpires.IsZero():
		return ok(name, "none is kept, or it has no end")
	case left <= 0 && byFile:
		return problem(name, "the token in vault.auth.token_file expired "+d.app.when(y.TokenExpires), "write a new one into it; then batchwarden sync")
	case left <= 0:
		return ok(name, "the last one expired "+d.app.when(y.TokenExpires)+"; the next sync logs in anew")
	case left < soon && byFile:
		return note(name, "good for "+span(left)+" more, unless it can be renewed")
	}
	return ok(name, "good for "+span(left)+" more; it is renewed, or the worker logs in anew")
}

// secret tells how long what the machine logs in with is good.
func (d *diagnosis) secret(name string, s said) doctor.Check {
	if d.config == nil {
		return unconfigured(name)[0]
	}
	if m := d.config.Vault.Auth.Method; m != config.AuthAppRole {
		return ok(name, "none is used: vault.auth.method is "+m)
	}
	if s.status == nil {
		return s.unsaid(name)[0]
	}
	mend := "batchwarden admin machine rotate " + s.status.Machine + " issues another one; put it where vault.auth says; then batchwarden sync"
	about := s.status.Sync.SecretID
	if about == nil {
		return unknown(name, "Vault did not tell this machine at the last login how long it is good", "batchwarden admin init lets machines ask for it; the next login does")
	}
	left, ends := about.Expires.Sub(d.app.now()), !about.Expires.IsZero()
	text := "it has no end"
	if ends {
		text = "good for " + span(left) + " more"
	}
	if about.Uses > 0 {
		text += ", for " + counted(about.Uses, "login")
	}
	switch {
	case about.Gone:
		return problem(name, "it was used up, expired or destroyed: the next login will be refused", mend)
	case ends && left <= 0:
		return problem(name, "it expired "+d.app.when(about.Expires)+": the next login will be refused", mend)
	case ends && left < soon, about.Uses == 1:
		return note(name, text+". "+mend)
	}
	return ok(name, text)
}

// synced is the outcome of the last sync and what it could not use.
func (d *diagnosis) synced(context.Context) []doctor.Check {
	const name, documents = "sync", "documents"
	s := d.status()
	if s.status == nil {
		return s.unsaid(name, documents)
	}
	y := s.status.Sync
	checks := []doctor.Check{ok(name, d.app.lastSync(y))}
	if y.Outcome != "ok" {
		text := "it does not succeed: " + trouble(y)
		if d.config != nil {
			text += ". " + d.untilStale()
		}
		checks[0] = problem(name, text, "mend what the other checks name; then batchwarden sync")
	}
	var faults []string
	for _, f := range y.Faults {
		faults = append(faults, f.Path+": "+f.Detail)
	}
	if len(faults) > 0 {
		return append(checks, problem(documents, strings.Join(faults, "; ")+". The last good versions stay in force", "mend the document in Vault; then batchwarden sync"))
	}
	return append(checks, ok(documents, "none in Vault was refused"))
}

// served is what decides, and who can be used.
func (d *diagnosis) served(context.Context) []doctor.Check {
	const policies, users = "policies", "batch_users"
	s := d.status()
	if s.err != nil {
		return s.unsaid(policies, users)
	}
	var faults, spoilt []string
	for _, p := range s.status.Policies {
		if p.State != "active" {
			faults = append(faults, fmt.Sprintf("realm %s is %s: %s", p.Realm, p.State, p.Detail))
		}
	}
	checks := []doctor.Check{ok(policies, fmt.Sprintf("%d in force", len(s.status.Policies)))}
	if len(faults) > 0 {
		checks[0] = problem(policies, strings.Join(faults, "; "), "batchwarden admin policy put REALM FILE --machine "+s.status.Machine+"; then batchwarden sync")
	}
	spoilt = notReady(s.users)
	for _, p := range s.status.Problems {
		if p.Code == wire.BatchUserAmbiguous || p.Code == wire.CredentialRejected {
			spoilt = append(spoilt, finding(p))
		}
	}
	if len(spoilt) > 0 {
		return append(checks, problem(users, strings.Join(spoilt, "; "), "batchwarden batch-users NAME says more; mend it in Vault, then batchwarden sync"))
	}
	return append(checks, ok(users, fmt.Sprintf("%d, all ready", len(s.users))))
}
