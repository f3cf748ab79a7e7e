package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
)

// maxSecret is the longest password that is taken; the contract's longest has 1,024 octets.
const maxSecret = 4096

// Retrieved says what came with a password: all of the same record.
type Retrieved struct {
	wire.Secret
	RotatesIn time.Duration // 0: not known
	Octets    int64
}

// Retrieve writes the password of a batch user, its raw octets and nothing else, to the writer. An *os.File is best: the
// system moves them there, and most often they never are in this process. For another writer no string is made of them,
// and the one buffer that they pass through is wiped, so what remembers the password afterwards is the writer. After an
// error part of it may have been written.
func (c *Client) Retrieve(ctx context.Context, name string, r wire.Retrieve, to io.Writer) (*Retrieved, error) {
	if f, is := to.(*os.File); is {
		return c.moveTo(ctx, name, r, f)
	}
	// A connection of its own, read by hand: net/http would read the password through buffers that it keeps.
	req, err := request(ctx, http.MethodPost, "/v1/batch-users/"+url.PathEscape(name)+"/retrieve", r)
	if err != nil {
		return nil, err
	}
	req.Close = true
	conn, err := localsock.Dial(ctx, c.socket)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer conn.Close() // all was read, or an error is returned anyway
	stop := context.AfterFunc(ctx, func() {
		_ = conn.SetDeadline(time.Unix(1, 0)) // it fails on a closed connection only
	})
	defer stop()

	// The service may refuse, and close, before it has read all: the answer counts.
	writeErr := req.Write(conn)
	header, err := readHeader(conn)
	if err != nil {
		return nil, c.unreachable(ctx, errors.Join(writeErr, err))
	}
	// Only what is no password may be read ahead.
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(header)), req)
	if err != nil {
		return nil, fmt.Errorf("client: retrieve: the answer cannot be read: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, c.refusal(ctx, header, conn, req)
	}
	if resp.ContentLength < 0 || resp.ContentLength > maxSecret {
		return nil, fmt.Errorf("client: retrieve: the answer says %d octets, which is no password", resp.ContentLength)
	}
	got, err := about(resp.Header)
	if err != nil {
		return nil, err
	}
	var room [maxSecret]byte
	defer clear(room[:])
	secret := room[:resp.ContentLength]
	if _, err := io.ReadFull(conn, secret); err != nil {
		return nil, c.unreachable(ctx, err)
	}
	n, err := to.Write(secret)
	if got.Octets = int64(n); err != nil {
		return nil, fmt.Errorf("client: retrieve: write the password: %w", err)
	}
	return got, nil
}

// readHeader reads an answer's status line and header, up to the empty line and not an octet further.
func readHeader(conn io.Reader) ([]byte, error) {
	var header []byte
	var one [1]byte
	for !bytes.HasSuffix(header, []byte("\r\n\r\n")) {
		if len(header) >= maxHeader {
			return nil, errors.New("the header of the answer does not end")
		}
		if _, err := io.ReadFull(conn, one[:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		header = append(header, one[0])
	}
	return header, nil
}

// refusal reads the rest of an answer that is no password, and returns the problem it is.
func (c *Client) refusal(ctx context.Context, header []byte, rest io.Reader, req *http.Request) error {
	resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(header), rest)), req)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer resp.Body.Close() // only read
	if err := problem(resp); err != nil {
		return err
	}
	return fmt.Errorf("client: retrieve: the service answered %q, which is no password", resp.Status)
}

// about reads what the header says of the password.
func about(h http.Header) (*Retrieved, error) {
	version, err := strconv.ParseInt(h.Get(wire.HeaderVersion), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("client: retrieve: the answer has no %s", wire.HeaderVersion)
	}
	got := &Retrieved{Secret: wire.Secret{Username: h.Get(wire.HeaderUsername), Domain: h.Get(wire.HeaderDomain), Version: version}}
	if text := h.Get(wire.HeaderRotatesIn); text != "" {
		seconds, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("client: retrieve: %s: %q is not a number of seconds", wire.HeaderRotatesIn, text)
		}
		got.RotatesIn = time.Duration(seconds) * time.Second
	}
	return got, nil
}
