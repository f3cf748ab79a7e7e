package remote

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"batchwarden/vault/documents"
	"batchwarden/vault/snapshot"
)

// join reads the parts of a policy document and returns the document. A part
// that is missing or not the head's changes nothing: the document is refused.
func (r *run) join(ctx context.Context, id snapshot.ID, parts []documents.Part, model string) ([]byte, *trouble) {
	pieces := make([][]byte, len(parts))
	troubles := make([]*trouble, len(parts))
	for i := range parts { // one after the other: they are few and large
		if pieces[i], troubles[i] = r.piece(ctx, fmt.Sprintf("%s.parts/%d", id, i+1), parts[i]); troubles[i] != nil {
			return nil, troubles[i]
		}
	}
	text, err := documents.Join(pieces)
	if err != nil {
		return nil, &trouble{detail: "parts: " + clean(err.Error())}
	}
	own, more, err := documents.ParsePolicy(text)
	switch {
	case err != nil:
		return nil, &trouble{detail: "parts: " + clean(err.Error())}
	case more != nil || own != model:
		return nil, &trouble{detail: "parts: the document in them is not the one of the head"}
	}
	return text, nil
}

func (r *run) piece(ctx context.Context, at string, p documents.Part) ([]byte, *trouble) {
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
	b, err := p.Open(doc.text)
	if err != nil {
		return nil, &trouble{detail: at + ": " + clean(err.Error())}
	}
	return b, nil
}
