package server

import "batchwarden/ipc/wire"

func (s *Server) logLevel(c *call) error {
	return c.reply(s.broker.LogLevel(c.r.Context(), c.peer, nil))
}

func (s *Server) setLogLevel(c *call) error {
	var body wire.SetLogLevel
	if err := c.read(&body); err != nil {
		return err
	}
	return c.reply(s.broker.LogLevel(c.r.Context(), c.peer, &body))
}
