// Package client speaks batchwarden's socket API for agents and operators' tools. It is standard library, the API's
// vocabulary (ipc/wire) and a dialler that sends nothing to a socket which somebody else than root could have put in
// the service's place.
//
//	c := client.New("/run/batchwarden/batchwarden.sock")
//	defer c.Close()
//	job, _, err := c.Launch(ctx, wire.Launch{ID: "run-7", Realm: "opcon", BatchUser: "payroll", …})
//	if p, refused := errors.AsType[*wire.Problem](err); refused { … p.Code … }
//	job, err = c.Wait(ctx, job.ID)
//
// Every call takes a context, which is the only thing that bounds its time. An error is a *wire.Problem when the
// service answered and said no, and wraps ErrUnreachable when there was no answer; then the same call may be made
// again, a launch too if its ID was given.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
)

// DefaultSocket is where the service listens unless it is configured otherwise.
const DefaultSocket = "/run/batchwarden/batchwarden.sock"

// Bounds of what an answer may make us keep.
const (
	maxAnswer  = 64 << 20 // a list of many thousand jobs
	maxProblem = 64 << 10
	maxHeader  = 64 << 10
	waitSlice  = 30 * time.Second // of one request of Wait
)

// ErrUnreachable reports that no answer came: nobody listens, the socket is not root's, or the connection broke.
var ErrUnreachable = errors.New("the batchwarden service does not answer")

// ErrOwner reports, beside ErrUnreachable, that nothing was sent because somebody else than root owns the socket or its
// directory, or can write there, and could stand in for the service.
var ErrOwner = localsock.ErrOwner

// Client makes calls over one socket and keeps connections between them. It is for use by any number of goroutines.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the service at socket. It connects when the first call is made, and anew whenever it has to.
func New(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				conn, err := localsock.Dial(ctx, socket)
				if err != nil {
					return nil, err
				}
				return localsock.WithFiles(conn), nil
			},
			DisableCompression:     true,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: maxHeader,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close closes the connections that no call is using.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Health says whether the service can decide and launch. That it cannot is an answer, not an error.
func (c *Client) Health(ctx context.Context) (*wire.Health, error) {
	resp, err := c.send(ctx, http.MethodGet, "/v1/health", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // only read
	if resp.StatusCode != http.StatusServiceUnavailable || isProblem(resp) {
		if err := problem(resp); err != nil {
			return nil, err
		}
	}
	return decode[wire.Health](c, resp)
}

// Whoami says who the service takes the caller for.
func (c *Client) Whoami(ctx context.Context) (*wire.Whoami, error) {
	return get[wire.Whoami](ctx, c, "/v1/whoami")
}

// Status says how the service is, to operators and clients.
func (c *Client) Status(ctx context.Context) (*wire.Status, error) {
	return get[wire.Status](ctx, c, "/v1/status")
}

// Authorize asks for a decision. A denial is a decision, not an error. With explain, for those who may, it carries the
// rule, the reason and the trace.
func (c *Client) Authorize(ctx context.Context, a wire.Authorize, explain bool) (*wire.Decision, error) {
	path := "/v1/authorize"
	if explain {
		path += "?explain=1"
	}
	return post[wire.Decision](ctx, c, path, a)
}

// BatchUsers lists the credentials that the caller may see, without secrets.
func (c *Client) BatchUsers(ctx context.Context) ([]wire.BatchUser, error) {
	all, err := get[wire.BatchUsers](ctx, c, "/v1/batch-users")
	if err != nil {
		return nil, err
	}
	return all.BatchUsers, nil
}

// BatchUser is one of BatchUsers.
func (c *Client) BatchUser(ctx context.Context, name string) (*wire.BatchUser, error) {
	return get[wire.BatchUser](ctx, c, "/v1/batch-users/"+url.PathEscape(name))
}

// Launch starts a job, or finds the one that the same ID and body started before; again says so. The job it returns
// may have failed to start: look at its State. Where l.ID is empty the service makes one, and a call that got no
// answer cannot be repeated without risking a second job.
func (c *Client) Launch(ctx context.Context, l wire.Launch) (job *wire.Job, again bool, err error) {
	return c.launch(ctx, l)
}

func (c *Client) launch(ctx context.Context, l wire.Launch, stdio ...localsock.File) (job *wire.Job, again bool, err error) {
	req, err := request(bring(ctx, stdio), http.MethodPost, "/v1/jobs", l)
	if err != nil {
		return nil, false, err
	}
	if l.ID != "" {
		// On a kept connection that the service has left meanwhile it is sent again, on a new one. Empty, the header
		// says so to the transport alone.
		req.Header["Idempotency-Key"] = []string{}
	}
	resp, err := c.do(ctx, req)
	if err != nil {
		return nil, false, err
	}
	defer resp.Body.Close() // only read
	if err := problem(resp); err != nil {
		return nil, false, err
	}
	job, err = decode[wire.Job](c, resp)
	return job, resp.StatusCode == http.StatusOK, err
}

// Job returns a job as soon as it has ended, but after the time of wait in any case; 0 does not wait.
func (c *Client) Job(ctx context.Context, id string, wait time.Duration) (*wire.Job, error) {
	path := "/v1/jobs/" + url.PathEscape(id)
	if wait > 0 {
		path += "?wait=" + min(wait, wire.MaxWait).String()
	}
	return get[wire.Job](ctx, c, path)
}

// Wait returns the job when it has ended.
func (c *Client) Wait(ctx context.Context, id string) (*wire.Job, error) {
	for {
		job, err := c.Job(ctx, id, waitSlice)
		if err != nil || job.Done() {
			return job, err
		}
	}
}

// Jobs lists the jobs that the caller may see.
func (c *Client) Jobs(ctx context.Context) ([]wire.Job, error) {
	all, err := get[wire.Jobs](ctx, c, "/v1/jobs")
	if err != nil {
		return nil, err
	}
	return all.Jobs, nil
}

// Stdout and Stderr are what Output reads.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Signal sends a signal to all of a job, and returns the job as it was then.
func (c *Client) Signal(ctx context.Context, id string, body wire.Signal) (*wire.Job, error) {
	return post[wire.Job](ctx, c, "/v1/jobs/"+url.PathEscape(id)+"/signal", body)
}

// Reading says which part of a job's output is wanted, and for whom where the client entry wants that said. The zero
// value is all of it for the client itself.
type Reading struct {
	Offset  int64
	Subject wire.Subject
	Object  json.RawMessage
}

func (r Reading) query() (string, error) {
	q := url.Values{"offset": {strconv.FormatInt(r.Offset, 10)}}
	if !r.Subject.IsZero() {
		text, err := json.Marshal(r.Subject)
		if err != nil {
			return "", err
		}
		q.Set("subject", string(text))
	}
	if len(r.Object) > 0 {
		q.Set("object", string(r.Object))
	}
	return q.Encode(), nil
}

// Output copies what a job has written to a stream so far, and returns how many octets that were, also with an error:
// the next call goes on at the offset plus that.
func (c *Client) Output(ctx context.Context, id, stream string, r Reading, to io.Writer) (int64, error) {
	query, err := r.query()
	if err != nil {
		return 0, err
	}
	path := "/v1/jobs/" + url.PathEscape(id) + "/output/" + url.PathEscape(stream) + "?" + query
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close() // only read
	if err := problem(resp); err != nil {
		return 0, err
	}
	body := &failing{Reader: resp.Body}
	n, err := io.Copy(to, body)
	if body.err != nil {
		return n, c.unreachable(ctx, body.err)
	}
	return n, err
}

// failing remembers an error of the reader, which is the service's, apart from one of the writer, which is the caller's.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// Sync makes the service ask Vault now and returns when the outcome is in force.
func (c *Client) Sync(ctx context.Context) (*wire.Sync, error) {
	return post[wire.Sync](ctx, c, "/v1/sync", nil)
}

func get[T any](ctx context.Context, c *Client, path string) (*T, error) {
	return exchange[T](ctx, c, http.MethodGet, path, nil)
}

func post[T any](ctx context.Context, c *Client, path string, body any) (*T, error) {
	return exchange[T](ctx, c, http.MethodPost, path, body)
}

func exchange[T any](ctx context.Context, c *Client, method, path string, body any) (*T, error) {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // only read
	if err := problem(resp); err != nil {
		return nil, err
	}
	return decode[T](c, resp)
}

// send makes a request with body as JSON, nil for none.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	req, err := request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	return c.do(ctx, req)
}

func (c *Client) do(ctx context.Context, req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return resp, nil
}

func request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("client: %s %s: %w", method, path, err)
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://batchwarden"+path, content)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json, "+wire.ContentType)
	return req, nil
}

// unreachable is the error of a call that got no answer. When the caller's context ended that is what it says.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // it would name a URL that nobody wrote
	}
	if strings.Contains(err.Error(), c.socket) {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return fmt.Errorf("%w at %q: %w", ErrUnreachable, c.socket, err)
}

// ended is the error of a context that has ended, with its cause where it has one of its own.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}

// Code is the stable code of an answer that said no, such as wire.PolicyDenied; "" when err is no such answer.
func Code(err error) string {
	if p, refused := errors.AsType[*wire.Problem](err); refused {
		return p.Code
	}
	return ""
}

func isProblem(resp *http.Response) bool {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && kind == wire.ContentType
}

// problem is the error that an answer is, nil when it is none.
func problem(resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem+1))
	p := new(wire.Problem)
	if err != nil || !isProblem(resp) || len(text) > maxProblem || json.Unmarshal(text, p) != nil || p.Code == "" {
		return fmt.Errorf("client: the service answered %q without saying why; is another program at the socket?", resp.Status)
	}
	return p
}

// decode reads an answer. Members that this version does not know are passed over: the API grows by adding.
func decode[T any](c *Client, resp *http.Response) (*T, error) {
	body := &io.LimitedReader{R: resp.Body, N: maxAnswer + 1}
	v := new(T)
	d := json.NewDecoder(body)
	err := d.Decode(v)
	if body.N <= 0 {
		return nil, fmt.Errorf("client: the answer is longer than %d octets", maxAnswer)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w at %q: the answer was cut off", ErrUnreachable, c.socket)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, body) // to its end, or the connection is not used again
	}
	if ctx := resp.Request.Context(); err != nil && ctx.Err() != nil {
		return nil, ended(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("client: the answer cannot be read: %w", err)
	}
	return v, nil
}
