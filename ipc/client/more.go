package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"batchwarden/ipc/wire"
)

// DryRun goes through every step of a launch short of starting it. That it would not be started is an answer, not an
// error.
func (c *Client) DryRun(ctx context.Context, l wire.Launch) (*wire.DryRun, error) {
	return post[wire.DryRun](ctx, c, "/v1/jobs?dry_run=1", l)
}

// Explain goes through every step of a launch like DryRun and says what each found, for operators and clients that may
// explain. The launch is its body as JSON, which the service judges as it is. With a client's name it is as if that
// client asked.
func (c *Client) Explain(ctx context.Context, launch json.RawMessage, client string) (*wire.DryRun, error) {
	q := url.Values{"dry_run": {"1"}, "explain": {"1"}}
	if client != "" {
		q.Set("client", client)
	}
	return post[wire.DryRun](ctx, c, "/v1/jobs?"+q.Encode(), launch)
}

// Forget removes an ended job and its output before its time; its ID can be used again then.
func (c *Client) Forget(ctx context.Context, id string) error {
	resp, err := c.send(ctx, http.MethodDelete, "/v1/jobs/"+url.PathEscape(id), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // there is nothing in it but a problem
	return problem(resp)
}

// Events returns what happened after a number, as soon as there is something, but after the time of wait in any case.
// Begin with 0, see in Jobs how things are, and go on after Next of the last answer. A problem events.gone means to
// begin anew: more has happened than is kept, or the service was started again.
func (c *Client) Events(ctx context.Context, after uint64, wait time.Duration) (*wire.Events, error) {
	q := url.Values{"after": {strconv.FormatUint(after, 10)}}
	if wait > 0 {
		q.Set("wait", min(wait, wire.MaxWait).String())
	}
	return get[wire.Events](ctx, c, "/v1/events?"+q.Encode())
}

// Verify tries the password of a batch user on the account of this host, for operators. That it is wrong or was not tried
// is an answer, not an error.
func (c *Client) Verify(ctx context.Context, name string) (*wire.Verified, error) {
	return post[wire.Verified](ctx, c, "/v1/batch-users/"+url.PathEscape(name)+"/verify", nil)
}

// Suspend keeps the machine from starting jobs until Resume, also after it was restarted. What runs goes on. The reason
// is for people, and may be empty.
func (c *Client) Suspend(ctx context.Context, reason string) (*wire.Suspension, error) {
	return post[wire.Suspension](ctx, c, "/v1/suspend", wire.Suspend{Reason: reason})
}

// Resume lets jobs be started again.
func (c *Client) Resume(ctx context.Context) (*wire.Suspension, error) {
	return post[wire.Suspension](ctx, c, "/v1/resume", nil)
}

// Metrics returns what GET /metrics answers, in Prometheus's text format.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	resp, err := c.send(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() // only read
	if err := problem(resp); err != nil {
		return "", err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return "", c.unreachable(ctx, err)
	}
	return string(text), nil
}

// Reload makes the service read its configuration again and returns when the outcome is in force: what changed, what needs
// a restart, or every fault of a configuration that was not taken, which is no error.
func (c *Client) Reload(ctx context.Context) (*wire.Reload, error) {
	return post[wire.Reload](ctx, c, "/v1/reload", nil)
}
