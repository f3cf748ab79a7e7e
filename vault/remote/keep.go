package remote

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"sync"
	"time"

	"batchwarden/platform/secret"
	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
)

// kept is what a worker leaves to the next one, sealed. It outlives tokens: what
// was unwrapped cannot be unwrapped again, and marks are compared for as long as
// there are sources.
type kept struct {
	secret.Quiet
	Session *session   `json:"session,omitempty"`
	Secret  *unwrapped `json:"secret,omitempty"`
	Bad     *badWrap   `json:"bad,omitempty"`
	Asked   string     `json:"asked,omitempty"` // digest of the wrapping token whose content was lost on the way
	MarkKey []byte     `json:"mark_key,omitempty"`
}

// keep is what is kept, on its way through a run.
type keep struct {
	secret.Mute
	kept
	before []byte // the text that the task brought; nil: none, or none that opens

	making sync.Mutex // guards MarkKey
}

// restore opens what an earlier worker left. What does not open is as good as
// nothing: a login makes a new token.
func (k *keep) restore(keys *errand.Keys, t *sealed.Token) {
	if t == nil || keys.Token == [errand.KeySize]byte{} {
		return
	}
	text, err := sealed.OpenToken(&keys.Token, t)
	if err != nil || json.Unmarshal(text, &k.kept) != nil {
		clear(text)
		k.kept = kept{}
		return
	}
	k.before = text
}

// usable is the token of before; nil when there is none that may be used: it
// was for another server, role or machine, or has ended.
func (k *keep) usable(print string, now time.Time) *session {
	s := k.Session
	if s == nil || print == "" || s.Print != print || s.Token == "" {
		return nil
	}
	if _, dead := s.due(now); dead {
		return nil
	}
	return s
}

// markKeySize is an HMAC-SHA256 key's.
const markKeySize = 32

// markKey is the key of this machine's marks: made once, when it is first asked
// for, and kept over every login.
func (r *run) markKey() []byte {
	r.keep.making.Lock()
	defer r.keep.making.Unlock()
	if len(r.keep.MarkKey) != markKeySize {
		r.keep.MarkKey = make([]byte, markKeySize)
		_, _ = rand.Read(r.keep.MarkKey) // it does not return without having filled it
	}
	return r.keep.MarkKey
}

// seal seals what is kept with the key of this run's batch.
func (r *run) seal(text []byte) (*sealed.Token, error) {
	t, err := sealed.SealToken(r.task.Generation, &r.keys.Batch, text)
	return &t, err
}

// keepNow hands on what is kept before the run goes on, as it could not be had a
// second time. An error ends the run.
func (r *run) keepNow() *trouble {
	r.mu.Lock()
	defer r.mu.Unlock()
	text, err := json.Marshal(r.keep.kept)
	if err == nil {
		defer clear(text)
		var t *sealed.Token
		if t, err = r.seal(text); err == nil {
			err = r.out.Token(*t)
		}
	}
	if err == nil {
		return nil
	}
	r.putErr = err
	return &trouble{errand.Setup, "what was unwrapped could not be handed on"}
}

// leave puts into the report what the next worker gets: a token when anything
// changed, else word that nothing did.
func (r *run) leave(report *errand.Report) error {
	if r.session != nil {
		report.TokenExpires, report.SecretID = r.session.expires(), r.session.SecretID
		if r.session.Print != "" {
			r.keep.Session = r.session
		}
	}
	text, err := json.Marshal(r.keep.kept)
	if err != nil {
		return err
	}
	defer clear(text)
	defer clear(r.keep.before)
	switch {
	case bytes.Equal(text, r.keep.before):
		report.KeepToken = true
		return nil
	case r.keep.before == nil && string(text) == "{}":
		return nil
	}
	report.Token, err = r.seal(text)
	return err
}

// forget drops the token: the server does not know it any more.
func (r *run) forget() { r.session, r.keep.Session = nil, nil }
