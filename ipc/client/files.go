package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"

	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
)

// Rekey lets the key that the pipe holds open the local vault too: its 32 octets and nothing after them, with the
// writing end closed. The pipe stays the caller's. Only root may.
func (c *Client) Rekey(ctx context.Context, about wire.HostKey, pipe *os.File) (*wire.HostKey, error) {
	resp, err := c.sendFiles(ctx, http.MethodPost, "/v1/rekey", about, pipe)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // only read
	if err := problem(resp); err != nil {
		return nil, err
	}
	return decode[wire.HostKey](c, resp)
}

// LaunchWith is Launch with the three files as the job's stdin, stdout and stderr. They stay the caller's, and may be
// closed when it returns; they are made to block, as for any program that is started. The service never reads or writes
// them. A repeat with the same ID finds the job, and changes nothing about its files.
func (c *Client) LaunchWith(ctx context.Context, l wire.Launch, stdin, stdout, stderr *os.File) (job *wire.Job, again bool, err error) {
	for _, f := range []*os.File{stdin, stdout, stderr} {
		f.Fd() // which makes it block
	}
	l.Stdio = "passed"
	return c.launch(ctx, l, stdin, stdout, stderr)
}

// RetrieveTo has the password of a batch user written into a pipe or a Unix stream socket. When it returns without an
// error all of it is there, ready to be read by whoever has the other end: it is never in this process otherwise. The
// descriptor stays the caller's.
func (c *Client) RetrieveTo(ctx context.Context, name string, r wire.Retrieve, to localsock.File) (*Retrieved, error) {
	resp, err := c.sendFiles(ctx, http.MethodPost, "/v1/batch-users/"+url.PathEscape(name)+"/retrieve", r, to)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() // only read
	if err := problem(resp); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusNoContent {
		return nil, fmt.Errorf("client: retrieve: the service answered %q and did not use the descriptor", resp.Status)
	}
	return about(resp.Header)
}

// moveTo retrieves into a pipe of our own, and has the system move its content to the file.
func (c *Client) moveTo(ctx context.Context, name string, r wire.Retrieve, to *os.File) (*Retrieved, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("client: retrieve: %w", err)
	}
	defer out.Close() // what is in it is gone with it
	got, err := c.RetrieveTo(ctx, name, r, in)
	if err := errors.Join(err, in.Close()); err != nil {
		return nil, err
	}
	if got.Octets, err = localsock.Move(to, out); err != nil {
		return nil, fmt.Errorf("client: retrieve: write the password: %w", err)
	}
	return got, nil
}

// sendFiles is send with descriptors that go with the first octet of the request.
func (c *Client) sendFiles(ctx context.Context, method, path string, body any, files ...localsock.File) (*http.Response, error) {
	return c.send(bring(ctx, files), method, path, body)
}

// bring has the connection that a request of the context gets send the descriptors with it.
func bring(ctx context.Context, files []localsock.File) context.Context {
	if len(files) == 0 {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		got.Conn.(*localsock.Bringing).Bring(files...)
	}})
}
