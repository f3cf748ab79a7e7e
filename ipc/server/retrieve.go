package server

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
	"batchwarden/platform/lockmem"
)

// retrieveTime bounds how long a reader may hold a slot of locked memory.
const retrieveTime = time.Second

// retrieve hands out a password, through the descriptor that came with the
// call if there is one. Else it goes over the connection: net/http would copy it through its buffers,
// which stay in the heap, so the connection is taken over and the header and
// the password are written to it by write(2) straight from locked memory; then
// it is closed.
func (s *Server) retrieve(c *call) error {
	var body wire.Retrieve
	if err := c.readSoon(&body); err != nil {
		return err
	}
	if len(c.files) > 0 {
		return s.retrieveTo(c, &body)
	}
	s.lent.Add(1)
	defer s.lent.Done()
	taken := false
	err := s.broker.Retrieve(c.r.Context(), c.peer, c.r.PathValue("name"), &body, func(about wire.Secret, password *lockmem.Buffer) error {
		conn, _, err := http.NewResponseController(c.w).Hijack()
		if err != nil {
			return fmt.Errorf("retrieve: take the connection over: %w", err)
		}
		taken = true
		defer conn.Close() // the secret has been written or the error says so
		if err := c.conn.SetDeadline(time.Now().Add(retrieveTime)); err != nil {
			return fmt.Errorf("retrieve: deadline: %w", err)
		}
		return localsock.WriteSecret(c.conn, secretHeader(about, len(password.Bytes())), password)
	})
	if taken && err != nil {
		s.log.Warn("password not delivered", "batch_user", c.r.PathValue("name"), "err", err)
		return nil // what was sent cannot be taken back, and an answer has begun
	}
	return err
}

func secretHeader(about wire.Secret, length int) []byte {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nCache-Control: no-store\r\nConnection: close\r\n")
	fmt.Fprintf(&b, "Content-Length: %d\r\n", length)
	fmt.Fprintf(&b, "%s: %s\r\n", wire.HeaderUsername, about.Username)
	fmt.Fprintf(&b, "%s: %s\r\n", wire.HeaderDomain, about.Domain)
	fmt.Fprintf(&b, "%s: %d\r\n", wire.HeaderVersion, about.Version)
	if about.RotatesIn != nil {
		fmt.Fprintf(&b, "%s: %d\r\n", wire.HeaderRotatesIn, *about.RotatesIn)
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}
