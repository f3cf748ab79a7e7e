package remote

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// join reads the parts of a policy document and returns the document. A part
// that is missing or not the head's changes nothing: the document is refused.
func (r *run) join(ctx context.Context, id snapshot.ID, parts []part, model string) ([]byte, *trouble) {
	pieces := make([][]byte, len(parts))
	troubles := make([]*trouble, len(parts))
	for i := range parts { // one after the other: they are few and large
		if pieces[i], troubles[i] = r.piece(ctx, fmt.Sprintf("%s.parts/%d", id, i+1), parts[i]); troubles[i] != nil {
			return nil, troubles[i]
		}
	}
	text, err := unzip(bytes.Join(pieces, nil))
	if err != nil {
		return nil, &trouble{detail: "parts: " + clean(err.Error())}
	}
	own, more, err := parsePolicy(text)
	switch {
	case err != nil:
		return nil, &trouble{detail: "parts: " + clean(err.Error())}
	case more != nil || own != model:
		return nil, &trouble{detail: "parts: the document in them is not the one of the head"}
	}
	return text, nil
}

func (r *run) piece(ctx context.Context, at string, p part) ([]byte, *trouble) {
	a, t := r.do(ctx, "data/"+at, url.Values{"version": {strconv.FormatInt(p.Version, 10)}})
	switch {
	case t != nil:
		return nil, t
	case a.status == http.StatusNotFound && len(a.errors) == 0:
		return nil, &trouble{detail: fmt.Sprintf("%s has no version %d", at, p.Version)}
	case a.status >= 400:
		return nil, r.refusal(a, at)
	}
	doc, t := documentOf(a)
	if t != nil {
		return nil, t
	}
	o, err := parseObject(doc.text)
	if err != nil {
		return nil, &trouble{detail: at + ": " + clean(err.Error())}
	}
	f := newFields(o)
	if format := f.format(); format > newest {
		return nil, &trouble{detail: at + ": " + errNewer(format).Error()}
	}
	data := f.text("data", maxBody)
	if err := f.err(); err != nil {
		return nil, &trouble{detail: at + ": " + clean(err.Error())}
	}
	b, err := base64.StdEncoding.DecodeString(data)
	if sum := sha256.Sum256(b); err != nil || hex.EncodeToString(sum[:]) != p.SHA256 {
		return nil, &trouble{detail: at + ": not the part that the head names"}
	}
	return b, nil
}

func unzip(b []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(z, sealed.MaxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(text) > sealed.MaxDocument {
		return nil, fmt.Errorf("longer than %d octets", sealed.MaxDocument)
	}
	return text, nil
}
