package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	parallel = 8
	maxBody  = 32 << 20
)

// retry lets a request be sent again only where the server says that it did not act on it.
func retry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return err == nil && (resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusPreconditionFailed), nil
}

// needs are the capabilities that Vault wants to see for each kind of request.
var needs = map[string]string{
	http.MethodGet:    "read",
	"LIST":            "list",
	http.MethodPut:    "create and update",
	http.MethodDelete: "delete",
}

// errAnswer is a refusal of Vault's.
type errAnswer struct {
	status int
	texts  []string
}

func (e *errAnswer) Error() string {
	if len(e.texts) == 0 {
		return fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
	}
	return strings.Join(e.texts, "; ")
}

func (e *errAnswer) Is(target error) bool {
	return target == ErrForbidden && e.status == http.StatusForbidden ||
		target == ErrUnavailable && e.status >= http.StatusInternalServerError ||
		target == ErrConflict && e.status == http.StatusBadRequest && strings.Contains(e.Error(), "check-and-set")
}

// ask sends one request and decodes what is answered into v, unless that is nil.
// found is false for a 404 without a text, which is how Vault says that there is nothing;
// then v may hold what came with it.
func (a *Admin) ask(ctx context.Context, via *api.Client, method, path string, query url.Values, body, v any) (found bool, err error) {
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return false, fmt.Errorf("admin: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	resp, err := raw(ctx, via.Logical(), method, path, query, text)
	var refused *api.ResponseError
	if err != nil && !errors.As(err, &refused) || resp == nil {
		return false, fmt.Errorf("admin: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return false, fmt.Errorf("admin: %s %s: half an answer: %w", method, path, err)
	}
	if len(b) > maxBody {
		return false, fmt.Errorf("admin: %s %s: an answer that is too long", method, path)
	}
	switch {
	case resp.StatusCode >= 400:
		var e struct {
			Errors []string `json:"errors"`
		}
		_ = json.Unmarshal(b, &e) // without texts the status has to do
		if resp.StatusCode != http.StatusNotFound || len(e.Errors) > 0 {
			return false, a.refusal(method, path, &errAnswer{resp.StatusCode, e.Errors})
		}
	case len(b) == 0 || v == nil:
		return true, nil
	}
	if v != nil && len(b) > 0 {
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(v); err != nil {
			return false, fmt.Errorf("admin: %s %s: an answer that is not one of Vault's", method, path)
		}
	}
	return resp.StatusCode < 400, nil
}

func raw(ctx context.Context, l *api.Logical, method, path string, query url.Values, body []byte) (*api.Response, error) {
	switch method {
	case http.MethodPut:
		return l.WriteRawWithContext(ctx, path, body)
	case http.MethodDelete:
		return l.DeleteRawWithContext(ctx, path)
	case "LIST":
		return l.ReadRawWithDataWithContext(ctx, path, url.Values{"list": {"true"}})
	}
	return l.ReadRawWithDataWithContext(ctx, path, query)
}

func (a *Admin) refusal(method, path string, e *errAnswer) error {
	if e.status != http.StatusForbidden {
		return fmt.Errorf("admin: %s %s: %w", method, path, e)
	}
	need := needs[method]
	if strings.HasPrefix(path, "sys/auth/") || strings.HasPrefix(path, "sys/mounts/") {
		need += " (and sudo below sys/auth)"
	}
	return fmt.Errorf("admin: %w: it needs the capability %s on %q; \"batchwarden admin init --print hcl\" shows a policy with all that it needs: %w",
		ErrForbidden, need, path, e)
}

func (a *Admin) read(ctx context.Context, path string, v any) (bool, error) {
	return a.ask(ctx, a.api, http.MethodGet, path, nil, nil, v)
}

func (a *Admin) write(ctx context.Context, path string, body, v any) error {
	if body == nil {
		body = map[string]any{}
	}
	found, err := a.ask(ctx, a.api, http.MethodPut, path, nil, body, v)
	if err == nil && !found {
		return fmt.Errorf("admin: nothing at %q", path)
	}
	return err
}

func (a *Admin) delete(ctx context.Context, path string) error {
	_, err := a.ask(ctx, a.api, http.MethodDelete, path, nil, nil, nil)
	return err
}

// list returns the names below path in order; none when there is nothing.
func (a *Admin) list(ctx context.Context, path string) ([]string, error) {
	var got struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	if _, err := a.ask(ctx, a.api, "LIST", path, nil, nil, &got); err != nil {
		return nil, err
	}
	slices.Sort(got.Data.Keys)
	return got.Data.Keys, nil
}

// work collects the steps of one call. It is one goroutine's.
type work struct {
	*Admin
	steps []Step
}

func (a *Admin) begin() *work { return &work{Admin: a} }

// do takes one step, unless this is a dry run.
func (w *work) do(verb, path, detail string, act func() error) error {
	if !w.conf.DryRun {
		if err := act(); err != nil {
			return err
		}
	}
	w.say(verb, path, detail)
	return nil
}

func (w *work) say(verb, path, detail string) { w.steps = append(w.steps, Step{verb, path, detail}) }

func (w *work) notef(format string, args ...any) { w.say(Note, "", fmt.Sprintf(format, args...)) }

// warn notes an error that nothing else depends on.
func (w *work) warn(path string, err error) {
	if err != nil {
		w.say(Warning, path, strings.TrimPrefix(err.Error(), "admin: "))
	}
}

// Each calls f for every item, a few at a time, and returns when all have
// returned. Once ctx ends it begins no more.
func Each[T any](ctx context.Context, items []T, f func(context.Context, T)) {
	var wg sync.WaitGroup
	next := make(chan T)
	for range min(len(items), parallel) {
		wg.Go(func() {
			for item := range next {
				f(ctx, item)
			}
		})
	}
	for _, item := range items {
		if ctx.Err() != nil {
			break
		}
		next <- item
	}
	close(next)
	wg.Wait()
}

// eachErr is Each where one error is as good as all.
func eachErr[T any](ctx context.Context, items []T, f func(context.Context, T) error) error {
	var mu sync.Mutex
	var first error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	Each(ctx, items, func(ctx context.Context, item T) {
		if err := f(ctx, item); err != nil {
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = err
			}
			cancel()
		}
	})
	if first == nil {
		return ctx.Err()
	}
	return first
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int64(d/time.Second)) }
