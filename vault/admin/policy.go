package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"batchwarden/vault/documents"
)

const (
	// AnyVersion lets PutPolicy replace whatever lies there.
	AnyVersion = -1

	inlineSize = 400 << 10 // octets; what is longer lies in parts
	partSize   = 300 << 10 // of a part, before base64: fits an entry on any storage of Vault's
)

// policyHead is what is read of a policy document here.
type policyHead struct {
	Format   int64            `json:"format"`
	Model    string           `json:"model"`
	Encoding string           `json:"encoding"`
	Parts    []documents.Part `json:"parts"`
}

func policyAt(scope, realm string) string { return scope + "/" + policyFolder + "/" + realm }

// Policies returns the realms that the scope has a policy for.
func (a *Admin) Policies(ctx context.Context, scope string) ([]string, error) {
	if err := CheckScope(scope); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return a.live(ctx, scope, policyFolder)
}

// Policy returns the document as it was put, and the version that a change of it
// names; nil when there is none, and then the version is what PutPolicy wants for
// the first.
func (a *Admin) Policy(ctx context.Context, scope, realm string) (doc []byte, version int64, err error) {
	if err := checkPlace(scope, realm); err != nil {
		return nil, 0, err
	}
	at := policyAt(scope, realm)
	d, err := a.document(ctx, at)
	if err != nil || d.text == nil {
		return nil, d.version, err
	}
	var h policyHead
	if err := json.Unmarshal(d.text, &h); err != nil {
		return nil, 0, fmt.Errorf("admin: %s: %w: %w", at, ErrInvalid, err)
	}
	if h.Format > 1 {
		return nil, 0, fmt.Errorf("admin: %s: %w: format %d is newer than this program", at, ErrInvalid, h.Format)
	}
	if h.Parts == nil {
		return d.text, d.version, nil
	}
	doc, err = a.join(ctx, at, h)
	return doc, d.version, err
}

// PutPolicy writes the document as the version after cas, which is what Policy
// returned, or AnyVersion. Where another version was written meanwhile it is
// ErrConflict and what lies there stays. A long document goes into parts first
// and its head last: whatever is interrupted, the old document stays whole.
// The document's rules are not looked at here.
func (a *Admin) PutPolicy(ctx context.Context, scope, realm, model string, doc []byte, cas int64) ([]Step, error) {
	w := a.begin()
	err := w.putPolicyDocument(ctx, scope, realm, model, doc, cas)
	return w.steps, err
}

func (w *work) putPolicyDocument(ctx context.Context, scope, realm, model string, doc []byte, cas int64) error {
	if err := checkPlace(scope, realm); err != nil {
		return err
	}
	at := policyAt(scope, realm)
	if err := checkPolicy(doc, model); err != nil {
		return fmt.Errorf("admin: %s: %w", at, err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, doc); err != nil {
		return fmt.Errorf("admin: %s: %w: %w", at, ErrInvalid, err)
	}
	d, err := w.document(ctx, at)
	if err != nil {
		return err
	}
	var old policyHead
	if d.text != nil && json.Unmarshal(d.text, &old) == nil {
		same, err := w.samePolicy(ctx, at, d.text, old, compact.Bytes())
		if err != nil || same {
			return err
		}
	}
	if cas == AnyVersion {
		cas = d.version
	}
	if cas != d.version {
		return fmt.Errorf("admin: %s: %w: version %d is there now, not %d", at, ErrConflict, d.version, cas)
	}
	var head any = json.RawMessage(compact.Bytes())
	detail := fmt.Sprintf("policy of model %s, %d octets", model, compact.Len())
	if compact.Len() > inlineSize {
		parts, err := w.putParts(ctx, at, old.Parts, compact.Bytes())
		if err != nil {
			return err
		}
		head = map[string]any{"format": documents.Newest, "model": model, "encoding": documents.Encoding, "parts": parts}
		detail += fmt.Sprintf(" in %d parts", len(parts))
	}
	var made written
	if err := w.putDocument(ctx, at, head, cas, detail, &made); err != nil {
		return err
	}
	w.hint(ctx, scope, policyFolder, realm, made.Version)
	if !w.conf.DryRun {
		w.warn(w.metadataPath(at+".parts"), w.cleanParts(ctx, at, made))
	}
	return nil
}

func checkPolicy(doc []byte, model string) error {
	own, parts, err := documents.ParsePolicy(doc)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	case own != model:
		return fmt.Errorf("%w: the document's model is %q, not %q", ErrInvalid, own, model)
	case parts != nil:
		return fmt.Errorf("%w: this is the head of a policy in parts, not the policy", ErrInvalid)
	}
	return nil
}

// samePolicy reports that what lies there says the same already.
func (w *work) samePolicy(ctx context.Context, at string, text []byte, h policyHead, doc []byte) (bool, error) {
	if h.Parts != nil {
		var err error
		if text, err = w.join(ctx, at, h); err != nil {
			return false, ctx.Err() // what cannot be read is to be replaced
		}
	}
	if bytes.Equal(text, doc) {
		return true, nil
	}
	now, err := decode(text)
	if err != nil {
		return false, nil // likewise
	}
	want, err := decode(doc)
	if err != nil {
		return false, err
	}
	// Vault keeps no order of members: both are put into the same.
	x, err := json.Marshal(now)
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(want)
	return bytes.Equal(x, y), err
}

// DeletePolicy deletes the policy of a realm: where no wider scope has one, the
// realm denies everything. Vault can undelete it, unless purge removes it with
// all its versions and parts.
func (a *Admin) DeletePolicy(ctx context.Context, scope, realm string, purge bool) ([]Step, error) {
	w := a.begin()
	if err := checkPlace(scope, realm); err != nil {
		return nil, err
	}
	err := w.remove(ctx, scope, policyFolder, realm, purge)
	return w.steps, err
}
