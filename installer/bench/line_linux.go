package main

import (
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
	room []byte // for an answer
}

func newLine(conn net.Conn) *line { return &line{conn, make([]byte, 4096)} }

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
	for have := 0; ; {
		if have == len(l.room) {
			l.room = append(l.room, make([]byte, have)...)
		}
		n, err := l.conn.Read(l.room[have:])
		if err != nil {
			return 0, nil, err
		}
		have += n
		if status, body, whole, err := answered(l.room[:have]); whole || err != nil {
			return status, body, err
		}
	}
}

// answered takes an answer apart when it is whole.
func answered(text []byte) (status int, body []byte, whole bool, err error) {
	head, rest, whole := bytes.Cut(text, []byte("\r\n\r\n"))
	if !whole {
		return 0, nil, false, nil
	}
	if status, err = strconv.Atoi(string(head[min(9, len(head)):min(12, len(head))])); err != nil { // behind HTTP/1.1
		return 0, nil, false, fmt.Errorf("an answer that begins with %.80q", head)
	}
	if bytes.Contains(head, []byte("\r\nTransfer-Encoding: chunked")) {
		if !bytes.HasSuffix(rest, []byte("0\r\n\r\n")) {
			return 0, nil, false, nil
		}
		body, err = io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(rest)))
		return status, body, err == nil, err
	}
	length := 0
	if _, after, has := bytes.Cut(head, []byte("\r\nContent-Length: ")); has {
		digits, _, _ := bytes.Cut(after, []byte("\r"))
		if length, err = strconv.Atoi(string(digits)); err != nil {
			return 0, nil, false, err
		}
	}
	if len(rest) < length {
		return 0, nil, false, nil
	}
	return status, rest[:length], true, nil
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
