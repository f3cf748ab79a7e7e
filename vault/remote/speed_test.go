package remote_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/remote"
	"batchwarden/vault/sealed"
	"batchwarden/vault/vaulttest"
)

// TestFirstSyncSpeed prints how long a first sync takes beside a reader that
// does nothing but GET the same documents, as many at a time, and decode them.
// It bounds requests, which do not vary, and no time, which does.
// BATCHWARDEN_SYNC_DOCUMENTS sets their number.
func TestFirstSyncSpeed(t *testing.T) {
	n := 300
	if text := os.Getenv("BATCHWARDEN_SYNC_DOCUMENTS"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		must(t, err)
	}
	ctx := t.Context()
	s, err := vaulttest.Start(ctx, vaulttest.Options{})
	must(t, err)
	defer s.Close()
	must(t, s.Init(ctx))
	src, token := prepared(t, s, n)

	var bare, first, poll []time.Duration
	for range 3 {
		begin := time.Now()
		bareReader(t, s, token, n)
		bare = append(bare, time.Since(begin))

		begin = time.Now()
		known, report := syncOnce(t, src, &errand.Task{Generation: 1, Sweep: true}, nil)
		first = append(first, time.Since(begin))
		if len(known) != n || report.Code != errand.OK {
			t.Fatalf("brought %d: %q, %s", len(known), report.Code, report.Detail)
		}
		if extra := report.Requests - n; extra > 12+n/1000 {
			t.Errorf("%d requests beside the documents", extra)
		}
		task := &errand.Task{Generation: 2}
		for _, sc := range report.Scopes {
			if sc.Index != nil {
				task.Indexes = append(task.Indexes, *sc.Index)
			}
		}
		begin = time.Now()
		_, report = syncOnce(t, src, task, known)
		poll = append(poll, time.Since(begin))
		if report.Code != errand.OK || report.Requests > 7 { // login, identity, three scopes' indexes at most
			t.Errorf("a poll: %q, %d requests", report.Code, report.Requests)
		}
	}
	b, f, p := slices.Min(bare), slices.Min(first), slices.Min(poll)
	t.Logf("%d documents: bare reader %v, first sync %v (ratio %.2f), a poll with its login %v", n, b, f, float64(f)/float64(b), p)
}

// prepared has n batch users in the server and a source for their machine.
func prepared(tb testing.TB, s *vaulttest.Server, n int) (*remote.Source, string) {
	tb.Helper()
	ctx := tb.Context()
	role, secret, err := s.AddMachine(ctx, "db01", "unix")
	must(tb, err)
	hints := map[string]any{}
	for i := range n {
		name := fmt.Sprintf("u%05d", i)
		hints[name] = 1
		must(tb, s.PutBatchUser(ctx, "machines/db01", name, map[string]any{"username": name, "password": "p-" + name, "names": map[string]any{"opcon": "users/" + name}}))
	}
	must(tb, s.PutIndex(ctx, "machines/db01", map[string]any{"batch_users": hints, "policies": map[string]any{}}))
	dir := tb.TempDir()
	auth := remote.Auth{Method: remote.AppRole, RoleIDFile: filepath.Join(dir, "role_id"), SecretIDFile: filepath.Join(dir, "secret_id")}
	must(tb, os.WriteFile(auth.RoleIDFile, []byte(role), 0o600))
	must(tb, os.WriteFile(auth.SecretIDFile, []byte(secret), 0o600))
	src, err := remote.New(remote.Config{Machine: "db01", Platforms: []string{"unix"}, Address: s.Address, CAFile: s.CAFile, Mount: vaulttest.Mount, Auth: auth})
	must(tb, err)
	token, err := s.Login(ctx, role, secret)
	must(tb, err)
	return src, token
}

func syncOnce(tb testing.TB, src *remote.Source, task *errand.Task, known []errand.Known) ([]errand.Known, *errand.Report) {
	tb.Helper()
	task.Held = map[string]int{}
	for _, k := range known {
		task.Held[k.ID.Scope]++
	}
	var got []errand.Known
	out := errand.NewWriter(io.Discard)
	report, err := src.Sync(tb.Context(), &errand.Keys{}, task, remote.Out{
		Put: func(r sealed.Record) error {
			got = append(got, errand.Known{ID: r.ID, Version: r.Version, Created: r.Created})
			return out.Message(errand.Message{Put: &r})
		},
		Token: func(sealed.Token) error { return nil },
		Known: func() ([]errand.Known, error) { return known, nil },
	})
	must(tb, err)
	return got, report
}

// bareReader reads n documents, eight at a time.
func bareReader(tb testing.TB, s *vaulttest.Server, token string, n int) {
	tb.Helper()
	pem, err := os.ReadFile(s.CAFile)
	must(tb, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	defer web.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(tb.Context())
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				if err := readBare(ctx, web, s.Address, token, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	must(tb, context.Cause(ctx))
}

func readBare(ctx context.Context, web *http.Client, address, token string, i int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v1/%s/data/machines/db01/batch_users/u%05d", address, vaulttest.Mount, i), nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var doc struct {
		Data struct {
			Data map[string]any `json:"data"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&doc); err != nil {
		return err
	}
	if doc.Data.Data["username"] == nil {
		return fmt.Errorf("%d: status %d", i, resp.StatusCode)
	}
	return nil
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
