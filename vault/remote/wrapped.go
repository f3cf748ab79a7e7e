package remote

import (
	"context"
	"fmt"
	"strings"

	"batchwarden/platform/secret"
	"batchwarden/vault/errand"
)

// wrapped is a secret_id that the server gives once to whoever shows the
// wrapping token. Somebody who read that token before us would log in as this
// machine, so a token that was used before is no mishap: it is reported, and
// not tried again. Nor is one unwrapped that holds anything else than a
// secret_id: somebody could have put it there, and keep its content.
type wrapped struct {
	secret.Mute
	token string // empty: the file is not there
	mount string
	role  string // empty: any
	from  string // of the token, for what was unwrapped
	print string // of the token and all that decides whether it is good
}

func newWrapped(c Config, token string) *wrapped {
	w := &wrapped{token: token, mount: c.Auth.Mount, role: c.Auth.Role}
	if token != "" {
		w.from, w.print = digest(token), c.print(c.Auth.Role, token)
	}
	return w
}

// unwrapped is a secret_id with the digest of the token it was wrapped with.
type unwrapped struct {
	secret.Quiet
	From     string `json:"from"`
	SecretID string `json:"secret_id"`
}

// badWrap is a wrapping token that must not be tried again.
type badWrap struct {
	Print string `json:"print"`
	Why   string `json:"why"`
}

// unwrap completes a login whose secret_id is wrapped: with what was unwrapped
// before while the file says the same, else with what the token in the file
// yields. A bad token is a warning as long as an older secret_id goes on: what
// is withdrawn in Vault meanwhile must be withdrawn here.
func (r *run) unwrap(ctx context.Context) *trouble {
	w := r.login.wrapped
	if w == nil {
		return nil
	}
	bad, t := r.openWrapped(ctx, w)
	switch have := r.keep.Secret; {
	case t != nil:
		return t
	case have == nil && bad == nil:
		return &trouble{errand.Setup, "secret_id_file does not exist, and no secret_id was unwrapped before"}
	case have == nil:
		return bad
	}
	r.warn = bad
	r.login = r.login.with(r.source.conf, r.keep.Secret.SecretID)
	r.client.conceal(r.keep.Secret.SecretID)
	return nil
}

// openWrapped looks at the wrapping token where that is called for. bad says
// that it was not fit to be unwrapped.
func (r *run) openWrapped(ctx context.Context, w *wrapped) (bad, t *trouble) {
	switch k := &r.keep.kept; {
	case w.token == "", k.Secret != nil && k.Secret.From == w.from:
		return nil, nil
	case k.Bad != nil && k.Bad.Print == w.print:
		return &trouble{errand.WrappedUsed, k.Bad.Why}, nil
	}
	secret, t := r.client.unwrap(ctx, w, func() { r.keep.Asked = w.from })
	switch {
	case t != nil && t.code == errand.WrappedUsed:
		if r.keep.Asked == w.from {
			t.detail += "; this machine asked for it once and got no answer, which may be all that happened"
		}
		r.keep.Bad, r.keep.Asked = &badWrap{w.print, t.detail}, ""
		return t, nil
	case t != nil:
		return nil, t
	}
	r.keep.Secret, r.keep.Bad, r.keep.Asked = &unwrapped{From: w.from, SecretID: secret}, nil, ""
	return nil, r.keepNow()
}

// unwrap returns the secret_id behind a wrapping token that nobody used before
// and that was made by asking for a secret_id of our role. lost is called when
// the answer that held it was lost on the way.
func (c *client) unwrap(ctx context.Context, w *wrapped, lost func()) (secretID string, t *trouble) {
	c.clearToken()
	a, t := c.do(ctx, "sys/wrapping/lookup", nil, map[string]any{"token": w.token})
	if t != nil {
		return "", t
	}
	if a.status >= 400 {
		return "", c.wrapRefused(a, "sys/wrapping/lookup")
	}
	var about struct {
		Data struct {
			CreationPath string `json:"creation_path"`
		} `json:"data"`
	}
	if t := unmarshal(a, &about); t != nil {
		return "", t
	}
	if !w.ours(about.Data.CreationPath) {
		return "", &trouble{errand.WrappedUsed, fmt.Sprintf(
			"the wrapping token in secret_id_file was made by %q and not for a secret_id of ours; it was left as it is: find out who wrote it",
			clean(about.Data.CreationPath))}
	}
	c.setToken(w.token)
	defer c.clearToken()
	a, t = c.do(ctx, "sys/wrapping/unwrap", nil, map[string]any{})
	if t != nil {
		lost()
		return "", t
	}
	if a.status >= 400 {
		return "", c.wrapRefused(a, "sys/wrapping/unwrap")
	}
	var got struct {
		Data struct {
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	if t := unmarshal(a, &got); t != nil {
		return "", t
	}
	if got.Data.SecretID == "" {
		return "", &trouble{errand.WrappedUsed, "the wrapping token in secret_id_file held no secret_id: write a new one"}
	}
	return got.Data.SecretID, nil
}

// ours reports whether path is where a secret_id of our role comes from.
func (w *wrapped) ours(path string) bool {
	rest, ok := strings.CutPrefix(path, "auth/"+w.mount+"/role/")
	role, ok2 := strings.CutSuffix(rest, "/secret-id")
	return ok && ok2 && role != "" && !strings.Contains(role, "/") && (w.role == "" || strings.EqualFold(role, w.role))
}

// wrapRefused is what a refusal means: Vault answers 400 or 403 for a token that
// it does not know any more. Anything else says nothing about the token.
func (c *client) wrapRefused(a answer, path string) *trouble {
	if a.status != 400 && a.status != 403 {
		return &trouble{errand.LoginRefused, fmt.Sprintf("%s: %s", path, c.said(a))}
	}
	return &trouble{errand.WrappedUsed, fmt.Sprintf(
		"the wrapping token in secret_id_file was used before, or has expired (%s); whoever used it may have the secret_id: destroy that and write a new token", c.said(a))}
}
