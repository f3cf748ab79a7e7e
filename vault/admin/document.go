package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"time"

	"batchwarden/platform/secret"
)

// folders are where documents lie in a scope.
var folders = []string{userFolder, policyFolder}

const (
	userFolder   = "batch_users"
	policyFolder = "policies"

	casTries = 12 // of a change that several may make at once
)

// document is the current version of a document. text is nil when it is deleted
// or was never there; version is then still what a change has to name.
type document struct {
	secret.Mute
	text    json.RawMessage
	version int64
	created time.Time
}

func (a *Admin) dataPath(at string) string     { return a.conf.Mount + "/data/" + at }
func (a *Admin) metadataPath(at string) string { return a.conf.Mount + "/metadata/" + at }

func (a *Admin) document(ctx context.Context, at string) (document, error) {
	return a.versionOf(ctx, at, 0)
}

// versionOf reads one version; 0 is the current one.
func (a *Admin) versionOf(ctx context.Context, at string, version int64) (document, error) {
	var got struct {
		Data struct {
			Data     json.RawMessage `json:"data"`
			Metadata struct {
				Version int64     `json:"version"`
				Created time.Time `json:"created_time"`
			} `json:"metadata"`
		} `json:"data"`
	}
	var query url.Values
	if version > 0 {
		query = url.Values{"version": {strconv.FormatInt(version, 10)}}
	}
	if _, err := a.ask(ctx, a.api, "GET", a.dataPath(at), query, nil, &got); err != nil {
		return document{}, err
	}
	d := document{text: got.Data.Data, version: got.Data.Metadata.Version, created: got.Data.Metadata.Created}
	if string(d.text) == "null" {
		d.text = nil
	}
	return d, nil
}

// written is what Vault says of a version that it took.
type written struct {
	Version int64     `json:"version"`
	Created time.Time `json:"created_time"`
}

// putDocument writes the version after cas. ErrConflict says that there is one already.
func (w *work) putDocument(ctx context.Context, at string, doc any, cas int64, detail string, made *written) error {
	verb := Update
	if cas == 0 {
		verb = Create
	}
	return w.do(verb, w.dataPath(at), detail, func() error {
		var got struct {
			Data written `json:"data"`
		}
		err := w.write(ctx, w.dataPath(at), map[string]any{"data": doc, "options": map[string]any{"cas": cas}}, &got)
		if err == nil && made != nil {
			*made = got.Data
		}
		return err
	})
}

// info is what Vault knows of a document without its text.
type info struct {
	Current  int64 `json:"current_version"`
	Most     int64 `json:"max_versions"`
	Versions map[string]struct {
		Created   time.Time `json:"created_time"`
		Deletion  string    `json:"deletion_time"`
		Destroyed bool      `json:"destroyed"`
	} `json:"versions"`
}

// live reports that the current version can be read.
func (i *info) live() bool {
	v, ok := i.Versions[strconv.FormatInt(i.Current, 10)]
	if !ok || v.Destroyed {
		return false
	}
	t, err := time.Parse(time.RFC3339Nano, v.Deletion)
	return v.Deletion == "" || err == nil && t.After(time.Now())
}

// info returns nil when there is no such document.
func (a *Admin) info(ctx context.Context, at string) (*info, error) {
	var got struct {
		Data info `json:"data"`
	}
	found, err := a.read(ctx, a.metadataPath(at), &got)
	if err != nil || !found {
		return nil, err
	}
	return &got.Data, nil
}

// deleteDocument marks the current version as deleted, or with purge removes all there ever was.
func (w *work) deleteDocument(ctx context.Context, at string, purge bool) error {
	if purge {
		return w.purge(ctx, at, "with all its versions")
	}
	i, err := w.info(ctx, at)
	if err != nil || i == nil || !i.live() {
		return err
	}
	return w.do(Delete, w.dataPath(at), "its current version; vault kv undelete brings it back", func() error {
		return w.delete(ctx, w.dataPath(at))
	})
}

func (w *work) purge(ctx context.Context, at, detail string) error {
	return w.do(Delete, w.metadataPath(at), detail, func() error {
		return w.delete(ctx, w.metadataPath(at))
	})
}

func conflict(err error) bool { return errors.Is(err, ErrConflict) }
