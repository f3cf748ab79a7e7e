package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"

	"batchwarden/installer/testbed"
)

// A line is a connection on which requests are written and answers read with no more work on this side than that takes,
// so that what is measured is the other side's.
type line struct {
	conn net.Conn
	in   *bufio.Reader
}

func newLine(conn net.Conn) *line { return &line{conn, bufio.NewReader(conn)} }

// toDaemon is a line of the LSAM's.
func toDaemon(b *testbed.Bed) (*line, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := b.Dial(ctx, b.Accounts.LSAM)
	if err != nil {
		return nil, err
	}
	return newLine(conn), nil
}

// ask makes a request; the answer's body has to be read before the next.
func (l *line) ask(request []byte) (*http.Response, error) {
	if _, err := l.conn.Write(request); err != nil {
		return nil, err
	}
	return http.ReadResponse(l.in, nil)
}

// read makes a request, and wants an answer of JSON with the status.
func (l *line) read(request []byte, want int, into any) error {
	answer, err := l.ask(request)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != want {
		return fmt.Errorf("%.60q: status %d, want %d: %.4096s", request, answer.StatusCode, want, text)
	}
	return json.Unmarshal(text, into)
}

// handwritten is a request as it goes over the wire.
func handwritten(method, path, body string) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: batchwarden\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
}
