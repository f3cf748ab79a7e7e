package server

import (
	"batchwarden/ipc/wire"
)

// rekey takes a new host key in. It comes by a pipe of its own: net/http would keep it in buffers.
func (s *Server) rekey(c *call) error {
	var body wire.HostKey
	if err := c.read(&body); err != nil {
		return err
	}
	if len(c.files) != 1 {
		return wire.Invalid("", "exactly one descriptor has to come with the request: the reading end of a pipe that holds the key")
	}
	return c.reply(s.broker.Rekey(c.r.Context(), c.peer, &body, c.files[0].File()))
}
