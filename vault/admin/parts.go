package admin

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"batchwarden/vault/documents"
)

// partVersions is how many versions Vault keeps of a part. Writes that were
// interrupted leave some; the one that the head names must outlast them.
const partVersions = 100

func partAt(at string, i int) string { return fmt.Sprintf("%s.parts/%d", at, i+1) }

// join reads a document that lies in parts.
func (a *Admin) join(ctx context.Context, at string, h policyHead) ([]byte, error) {
	if h.Encoding != documents.Encoding || len(h.Parts) == 0 || len(h.Parts) > documents.MaxParts {
		return nil, fmt.Errorf("admin: %s: %w: parts that cannot be read", at, ErrInvalid)
	}
	pieces := make([][]byte, len(h.Parts))
	for i, p := range h.Parts {
		d, err := a.versionOf(ctx, partAt(at, i), p.Version)
		if err != nil {
			return nil, err
		}
		if d.text == nil {
			return nil, fmt.Errorf("admin: %s: %w: version %d is not there", partAt(at, i), ErrNotFound, p.Version)
		}
		if pieces[i], err = p.Open(d.text); err != nil {
			return nil, fmt.Errorf("admin: %s: %w: %w", partAt(at, i), ErrInvalid, err)
		}
	}
	doc, err := documents.Join(pieces)
	if err != nil {
		return nil, fmt.Errorf("admin: %s: parts: %w: %w", at, ErrInvalid, err)
	}
	return doc, nil
}

// putParts writes the document's parts and returns what its head says of them. A
// part that the head in force has already is taken as it is: as long as that head
// is in force nobody cleans it away, and if it is not, the new head is refused.
func (w *work) putParts(ctx context.Context, at string, old []documents.Part, doc []byte) ([]documents.Part, error) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(doc); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	var parts []documents.Part
	for chunk := range slices.Chunk(zipped.Bytes(), partSize) {
		i, p := len(parts), documents.PartOf(chunk, 0)
		if i < len(old) && old[i].SHA256 == p.SHA256 {
			parts = append(parts, old[i])
			continue
		}
		var err error
		if p.Version, err = w.putPart(ctx, partAt(at, i), chunk); err != nil {
			return nil, err
		}
		parts = append(parts, p)
	}
	return parts, nil
}

func (w *work) putPart(ctx context.Context, at string, chunk []byte) (int64, error) {
	i, err := w.info(ctx, at)
	if err != nil {
		return 0, err
	}
	if (i == nil || i.Most < partVersions) && !w.conf.DryRun { // not worth a step
		if err := w.write(ctx, w.metadataPath(at), map[string]any{"max_versions": partVersions}, nil); err != nil {
			return 0, err
		}
	}
	var made struct {
		Data written `json:"data"`
	}
	err = w.do(Create, w.dataPath(at), fmt.Sprintf("a part, %d octets", len(chunk)), func() error {
		return w.write(ctx, w.dataPath(at), map[string]any{"data": map[string]any{"data": base64.StdEncoding.EncodeToString(chunk)}}, &made)
	})
	return made.Data.Version, err
}

// cleanParts destroys versions of parts that no head names. Those written since
// the head in force may be of a writer whose head is still to come, and stay.
func (w *work) cleanParts(ctx context.Context, at string, head written) error {
	there, err := w.list(ctx, w.metadataPath(at+".parts"))
	if err != nil || len(there) == 0 {
		return err
	}
	named, all, err := w.namedParts(ctx, at)
	if err != nil || !all {
		return err
	}
	for _, name := range there {
		n, err := strconv.Atoi(name)
		if err != nil || strconv.Itoa(n) != name {
			continue // not ours
		}
		if err := w.cleanPart(ctx, at+".parts/"+name, named[n], head.Created); err != nil {
			return err
		}
	}
	return nil
}

// namedParts says which versions of each part, by number, the heads that Vault
// still has name. all is false when one of them is deleted: it can be brought
// back, and until then nobody sees what it names.
func (w *work) namedParts(ctx context.Context, at string) (named map[int]map[int64]bool, all bool, err error) {
	i, err := w.info(ctx, at)
	if err != nil || i == nil {
		return nil, false, err
	}
	named = map[int]map[int64]bool{}
	for _, v := range slices.Sorted(maps.Keys(i.Versions)) {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || i.Versions[v].Destroyed {
			continue
		}
		if i.Versions[v].Deletion != "" {
			return nil, false, nil
		}
		d, err := w.versionOf(ctx, at, n)
		if err != nil {
			return nil, false, err
		}
		var h policyHead
		if json.Unmarshal(d.text, &h) != nil {
			continue
		}
		for j, p := range h.Parts {
			if named[j+1] == nil {
				named[j+1] = map[int64]bool{}
			}
			named[j+1][p.Version] = true
		}
	}
	return named, true, nil
}

// cleanPart destroys single versions and never the whole part: another writer
// may be about to add one.
func (w *work) cleanPart(ctx context.Context, at string, named map[int64]bool, before time.Time) error {
	i, err := w.info(ctx, at)
	if err != nil || i == nil {
		return err
	}
	var old []int64
	for v, age := range i.Versions {
		n, err := strconv.ParseInt(v, 10, 64)
		if err == nil && !age.Destroyed && !named[n] && age.Created.Before(before) {
			old = append(old, n)
		}
	}
	if len(old) == 0 {
		return nil
	}
	slices.Sort(old)
	path := w.conf.Mount + "/destroy/" + at
	return w.do(Delete, path, "versions that no head names: "+strings.Trim(fmt.Sprint(old), "[]"), func() error {
		return w.write(ctx, path, map[string]any{"versions": old}, nil)
	})
}
