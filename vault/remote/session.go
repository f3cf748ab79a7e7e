package remote

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/http"
	"strings"
	"time"

	"batchwarden/platform/secret"
	"batchwarden/vault/errand"
)

// session is a token and what is known of it.
type session struct {
	secret.Quiet
	Token   string        `json:"token"`
	Print   string        `json:"print"` // of the login it came from
	From    time.Time     `json:"from"`  // when it was given or renewed
	Life    time.Duration `json:"life"`  // from then; 0: without end
	Full    time.Duration `json:"full"`  // what life was at login
	Renew   bool          `json:"renew"`
	Machine bool          `json:"machine"` // it was seen to be this machine's

	SecretID *errand.SecretID `json:"secret_id,omitempty"` // that it came from, where the server tells

	entity   string // of the answer that gave it
	metadata map[string]string
	fresh    bool // given in this run
}

// enough is the time a token must still have: a run takes no longer.
const enough = runTime + 30*time.Second

// expires is when the token ends, zero when it does not.
func (s *session) expires() time.Time {
	if s.Life == 0 {
		return time.Time{}
	}
	return s.From.Add(s.Life)
}

// due says what to do with a token at now: past its share of its life it is
// renewed, and so is one that would not last for this run. A clock that was set
// back makes its age unknown.
func (s *session) due(now time.Time) (renew, dead bool) {
	if s.Life == 0 {
		return false, false
	}
	age := now.Sub(s.From)
	if age < -time.Minute || age >= s.Life {
		return false, true
	}
	return age >= s.share() || s.Life-age < enough, false
}

// share is the age at which the token is renewed: from two thirds to five sixths
// of its life, another for every machine and every time, so that thousands that
// began together do not come together.
func (s *session) share() time.Duration {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", s.Print, s.From.UnixNano()))
	jitter := time.Duration(binary.BigEndian.Uint16(sum[:]))
	return s.Life/3*2 + s.Life/6/(1<<16)*jitter
}

// begin gets a token that will last for this run: the one from before if it can
// be, renewed if it should be, else a new one.
func (r *run) begin(ctx context.Context) *trouble {
	if t := r.unwrap(ctx); t != nil {
		return t
	}
	old := r.keep.usable(r.login.print, time.Now())
	if old == nil {
		return r.logIn(ctx)
	}
	renew, _ := old.due(time.Now())
	r.use(old)
	if !renew {
		return nil
	}
	if t := r.renew(ctx); t != nil && t.fatal() {
		return t
	}
	if again, _ := r.session.due(time.Now()); !again && r.session.Life >= r.session.Full/3 {
		return nil
	}
	// Not renewed, or near the end of what renewing gives.
	have := r.session
	t := r.logIn(ctx)
	if t == nil || t.fatal() {
		return t
	}
	if _, dead := have.due(time.Now()); dead {
		return t
	}
	r.warn = &trouble{t.code, t.detail + "; the token in use ends at " + have.expires().UTC().Format(time.DateTime) + " UTC"}
	r.use(have)
	return nil
}

// admit says in the report what went wrong although the run went on.
func (r *run) admit(report *errand.Report) {
	if r.warn != nil && (report.Code == errand.OK || report.Code == errand.LoginRefused) {
		report.Code, report.Detail = r.warn.code, strings.TrimSuffix(r.warn.detail+"; "+report.Detail, "; ")
	}
}

func (r *run) use(s *session) {
	r.session = s
	r.client.setToken(s.Token)
}

// auth is the part of an answer that gives or prolongs a token.
type auth struct {
	secret.Mute
	Auth struct {
		ClientToken   string            `json:"client_token"`
		LeaseDuration int64             `json:"lease_duration"`
		Renewable     bool              `json:"renewable"`
		EntityID      string            `json:"entity_id"`
		Metadata      map[string]string `json:"metadata"`
	} `json:"auth"`
}

func (r *run) logIn(ctx context.Context) *trouble {
	l := &r.login
	switch {
	case l.path == "":
		r.use(&session{Token: l.token, fresh: true})
		return nil
	case r.refused != nil: // once in a run: servers count refused logins
		return r.refused
	}
	r.client.clearToken() // an old one does not go to a login
	now := time.Now()
	a, t := r.client.do(ctx, l.path, nil, l.body)
	switch {
	case t != nil && t.code == errand.Error && l.expired(now):
		r.refused = &trouble{errand.LoginRefused, l.path + ": " + t.detail + l.hint(now)}
		return r.refused
	case t != nil:
		return t
	case a.status >= 400:
		r.refused = &trouble{errand.LoginRefused, l.path + ": " + r.client.said(a) + l.hint(now)}
		return r.refused
	}
	var got auth
	if t := unmarshal(a, &got); t != nil {
		return t
	}
	if got.Auth.ClientToken == "" || got.Auth.LeaseDuration < 0 {
		return &trouble{errand.Answer, l.path + ": a login without a token"}
	}
	life := time.Duration(got.Auth.LeaseDuration) * time.Second
	r.use(&session{Token: got.Auth.ClientToken, Print: l.print, From: now, Life: life, Full: life,
		Renew: got.Auth.Renewable, entity: got.Auth.EntityID, metadata: got.Auth.Metadata, fresh: true})
	r.session.SecretID = r.lookUpSecretID(ctx, got.Auth.Metadata["role_name"])
	return nil
}

// renew prolongs the token. What it cannot do shows in the session's times.
func (r *run) renew(ctx context.Context) *trouble {
	if !r.session.Renew {
		return nil
	}
	now := time.Now()
	a, t := r.client.do(ctx, "auth/token/renew-self", nil, map[string]any{})
	if t != nil || a.status >= 400 {
		return t
	}
	var got auth
	if t := unmarshal(a, &got); t != nil {
		return t
	}
	if got.Auth.LeaseDuration > 0 {
		s := *r.session
		s.From, s.Life, s.Renew = now, time.Duration(got.Auth.LeaseDuration)*time.Second, got.Auth.Renewable
		s.entity, s.Machine = got.Auth.EntityID, false
		s.SecretID = r.lookUpSecretID(ctx, got.Auth.Metadata["role_name"])
		r.session = &s
	}
	return nil
}

// lookUpSecretID asks how long the secret_id that the machine logs in with is good. It is for people: where the server
// does not tell, nothing is known, and the run goes on.
func (r *run) lookUpSecretID(ctx context.Context, role string) *errand.SecretID {
	secretID, ok := r.login.body["secret_id"]
	mount, isLogin := strings.CutSuffix(r.login.path, "/login")
	if !ok || !isLogin || role == "" || strings.Contains(role, "/") {
		return nil
	}
	if machine := r.source.conf.Machine; strings.EqualFold(role, machine) {
		role = machine // servers write a role's name small, and allow us the path with ours
	}
	a, t := r.client.do(ctx, mount+"/role/"+role+"/secret-id/lookup", nil, map[string]any{"secret_id": secretID})
	switch {
	case t != nil || a.status >= 400:
		return nil
	case a.status == http.StatusNoContent:
		return &errand.SecretID{Gone: true}
	}
	var got struct {
		Data struct {
			Expires time.Time `json:"expiration_time"` // the year 1: never
			Uses    int       `json:"secret_id_num_uses"`
		} `json:"data"`
	}
	if unmarshal(a, &got) != nil {
		return nil
	}
	return &errand.SecretID{Expires: got.Data.Expires, Uses: got.Data.Uses}
}

// lookUp asks the server about the token. alive is false when the server knows no such token.
func (r *run) lookUp(ctx context.Context) (alive bool, t *trouble) {
	a, t := r.client.do(ctx, "auth/token/lookup-self", nil, nil)
	if t != nil {
		return false, t
	}
	if a.status >= 400 {
		return false, nil
	}
	var got struct {
		Data struct {
			EntityID string            `json:"entity_id"`
			Meta     map[string]string `json:"meta"`
			TTL      int64             `json:"ttl"`
		} `json:"data"`
	}
	if t := unmarshal(a, &got); t != nil {
		return false, t
	}
	r.session.entity, r.session.metadata = got.Data.EntityID, got.Data.Meta
	if r.session.Print == "" { // a token from a file: only the server knows its life
		r.session.From, r.session.Life = time.Now(), time.Duration(got.Data.TTL)*time.Second
	}
	return true, nil
}

// identify makes sure that the token is this machine's, as far as the server
// lets the token see: its entity's metadata, else the token's own.
func (r *run) identify(ctx context.Context) *trouble {
	if r.session.Machine {
		return nil
	}
	if r.session.entity == "" {
		alive, t := r.lookUp(ctx)
		if t != nil {
			return t
		}
		if !alive {
			return r.tokenGone()
		}
	}
	machine, t := r.entityMachine(ctx)
	if t != nil {
		return t
	}
	if machine == "" {
		machine = r.session.metadata["machine"]
	}
	if own := r.source.conf.Machine; machine != "" && machine != own {
		return &trouble{errand.Identity, fmt.Sprintf("the login is machine %q's, this machine is configured as %q", clean(machine), own)}
	}
	r.session.Machine = true
	return nil
}

// entityMachine is the metadata "machine" of the token's entity; empty when it
// is not set or must not be read.
func (r *run) entityMachine(ctx context.Context) (string, *trouble) {
	if r.session.entity == "" {
		return "", nil
	}
	a, t := r.client.do(ctx, "identity/entity/id/"+r.session.entity, nil, nil)
	if t != nil || a.status >= 400 {
		return "", t
	}
	var got struct {
		Data struct {
			Metadata map[string]string `json:"metadata"`
		} `json:"data"`
	}
	t = unmarshal(a, &got)
	return got.Data.Metadata["machine"], t
}

func (r *run) tokenGone() *trouble {
	return &trouble{errand.LoginRefused, "the server does not know the token"}
}
