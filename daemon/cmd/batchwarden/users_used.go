package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/ipc/wire"
)

const (
	usedSince = 30 * 24 * time.Hour
	mostUses  = 1000 // subjects and clients that are told apart
	mostJobs  = 3    // ids of each
)

// usedUser is a batch user and who used it.
type usedUser struct {
	*wire.BatchUser
	Used    *usage30 `json:"used,omitempty"`
	Unknown string   `json:"used_unknown,omitempty"` // why Used is absent
}

// usage30 is who was granted a batch user in the last 30 days.
type usage30 struct {
	Since time.Time `json:"since"`
	By    []*used   `json:"by"`
	More  int       `json:"more,omitempty"` // records of others than are told apart
}

// used is one subject's and client's use of a batch user.
type used struct {
	Subject   string    `json:"subject"`
	Client    string    `json:"client"`
	Realm     string    `json:"realm"`
	Launches  int       `json:"launches"`  // that were granted
	Retrieves int       `json:"retrieves"` // likewise
	Last      time.Time `json:"last"`
	Versions  []int64   `json:"versions"` // of the password, the newest first
	Jobs      []string  `json:"jobs,omitempty"`
}

// usesOf reads the audit log from its end for who used a batch user.
func (a *app) usesOf(ctx context.Context, config, name string) (*usage30, error) {
	log, _, err := auditFiles(config, nil, false)
	if err != nil {
		return nil, fmt.Errorf("the configuration, which says where the audit log lies, cannot be read: %w", err)
	}
	u, err := uses(ctx, log, name, a.now().Add(-usedSince))
	if errors.Is(err, fs.ErrPermission) {
		return nil, errors.New(logIsTheirs)
	}
	return u, err
}

func uses(ctx context.Context, log, name string, since time.Time) (*usage30, error) {
	by := map[[3]string]*used{}
	all := &usage30{Since: since.UTC()}
	needle := []byte(`"batch_user":"` + name + `"`) // a batch user's name has no character that JSON would write otherwise
	err := audit.Tail(ctx, log, 1, false, func(line []byte) (yes, stop bool) {
		at, ok := timeOf(line)
		if ctx.Err() != nil || ok && at.Before(since.Add(-orderSlack)) {
			return false, true
		}
		if !ok || at.Before(since) || !bytes.Contains(line, needle) {
			return false, false
		}
		r, ok := parsed(line)
		if !ok || r.BatchUser != name || r.Verdict != audit.Allow || r.Kind != audit.Launch && r.Kind != audit.Retrieve {
			return false, false
		}
		all.add(by, r.Record)
		return false, false
	}, nil)
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	all.By = slices.SortedFunc(maps.Values(by), func(x, y *used) int { return y.Last.Compare(x.Last) })
	return all, nil
}

// add takes a record in, which is older than those before.
func (all *usage30) add(by map[[3]string]*used, r *audit.Record) {
	who := ""
	if s := r.Subject; s != nil {
		who = subject(wire.Subject{User: s.User, Roles: s.Roles, By: s.By})
	}
	key := [3]string{who, r.Client, r.Realm}
	u := by[key]
	if u == nil {
		if len(by) == mostUses {
			all.More++
			return
		}
		u = &used{Subject: who, Client: r.Client, Realm: r.Realm, Last: r.Time, Versions: []int64{}}
		by[key] = u
	}
	if r.Kind == audit.Launch {
		u.Launches++
	} else {
		u.Retrieves++
	}
	if v := r.CredentialVersion; v > 0 && !slices.Contains(u.Versions, v) {
		u.Versions = append(u.Versions, v)
	}
	if r.Job != nil && r.Job.ID != "" && len(u.Jobs) < mostJobs {
		u.Jobs = append(u.Jobs, r.Job.ID)
	}
}

func (v *usedUser) text(a *app) string {
	if v.Used == nil {
		return cell(v.Unknown) + "\n"
	}
	if len(v.Used.By) == 0 {
		return "Nobody was granted its use in the last 30 days.\n"
	}
	var p page
	p.line("Granted in the last 30 days, as far back as the audit log goes:")
	p.row("SUBJECT", "CLIENT", "REALM", "LAUNCHES", "RETRIEVES", "LAST", "VERSIONS", "LAST JOBS")
	for _, u := range v.Used.By {
		versions := make([]string, len(u.Versions))
		for i, n := range u.Versions {
			versions[i] = fmt.Sprint(n)
		}
		p.row(u.Subject, u.Client, u.Realm, fmt.Sprint(u.Launches), fmt.Sprint(u.Retrieves), a.when(u.Last), few(versions), strings.Join(u.Jobs, " "))
	}
	if v.Used.More > 0 {
		p.line("and %d times by others, more than are told apart", v.Used.More)
	}
	return p.String()
}

// few lists as much as a cell has room for.
func few(list []string) string {
	const most = 6
	if len(list) > most {
		return strings.Join(list[:most], " ") + " …"
	}
	return strings.Join(list, " ")
}

// counts says how often each code was.
func counts(codes map[string]int) string {
	var list []string
	for _, code := range slices.Sorted(maps.Keys(codes)) {
		list = append(list, fmt.Sprintf("%s %d", code, codes[code]))
	}
	return strings.Join(list, ", ")
}
