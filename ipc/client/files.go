package client

import (
	"context"
	"net"
	"net/http"
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

// sendFiles is send with descriptors that go with the first octet of the request, on a connection of its own.
func (c *Client) sendFiles(ctx context.Context, method, path string, body any, files ...localsock.File) (*http.Response, error) {
	req, err := request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	once := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := localsock.Dial(ctx, c.socket)
			if err != nil {
				return nil, err
			}
			return localsock.WithFiles(conn, files...), nil
		},
		DisableCompression:     true,
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHeader,
	}
	resp, err := once.RoundTrip(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return resp, nil
}
