package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"

	"batchwarden/installer/testbed"
)

// A line is a connection on which requests are written and answers read with no more work on this side than that takes,
// so that what is measured is the other side's.
type line struct {
	conn net.Conn
	in   *bufio.Reader
	room []byte // for a body
}

func newLine(conn net.Conn) *line { return &line{conn: conn, in: bufio.NewReader(conn)} }

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

// ask makes a request. The body that it returns is the line's until the next one.
func (l *line) ask(request []byte) (status int, body []byte, err error) {
	if _, err := l.conn.Write(request); err != nil {
		return 0, nil, err
	}
	first, err := l.in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	_, code, _ := bytes.Cut(first, []byte(" "))
	if status, err = strconv.Atoi(string(code[:min(3, len(code))])); err != nil {
		return 0, nil, fmt.Errorf("an answer that begins with %q", first)
	}
	length, inChunks := 0, false
	for {
		field, err := l.in.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		name, value, more := bytes.Cut(bytes.TrimRight(field, "\r\n"), []byte(": "))
		switch {
		case len(name) == 0:
			body, err := l.read(length, inChunks)
			return status, body, err
		case !more:
			return 0, nil, fmt.Errorf("a header with %q", field)
		case string(name) == "Content-Length":
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, nil, err
			}
		case string(name) == "Transfer-Encoding":
			inChunks = true
		}
	}
}

// read reads a body.
func (l *line) read(length int, inChunks bool) (body []byte, err error) {
	if inChunks {
		if body, err = io.ReadAll(httputil.NewChunkedReader(l.in)); err == nil {
			_, err = l.in.ReadSlice('\n') // of the trailer, which has nothing else
		}
		return body, err
	}
	if length > len(l.room) {
		l.room = make([]byte, length)
	}
	_, err = io.ReadFull(l.in, l.room[:length])
	return l.room[:length], err
}

// want makes a request, and wants an answer of JSON with the status.
func (l *line) want(request []byte, status int, into any) error {
	got, body, err := l.ask(request)
	if err != nil {
		return err
	}
	if got != status {
		return fmt.Errorf("%.60q: status %d, want %d: %.4096s", request, got, status, body)
	}
	return json.Unmarshal(body, into)
}

// handwritten is a request as it goes over the wire.
func handwritten(method, path, body string) []byte {
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: batchwarden\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
}
