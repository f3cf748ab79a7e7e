package server

import (
	"net/http"
	"strconv"
	"time"

	"batchwarden/ipc/wire"
)

// dryRun answers a launch that is not meant.
func (s *Server) dryRun(c *call) error {
	explain, err := c.flag("explain")
	if err != nil {
		return err
	}
	client := c.r.URL.Query().Get("client")
	if client != "" && !explain {
		return wire.Invalid("client", "what would happen if another client asked is explained only: give explain=1 too")
	}
	var body wire.Launch
	if err := c.read(&body); err != nil {
		return err
	}
	return c.reply(s.broker.DryRun(c.r.Context(), c.peer, c.conn, &body, explain, client))
}

func (s *Server) forget(c *call) error {
	if err := s.broker.Forget(c.r.Context(), c.peer, c.r.PathValue("id")); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) events(c *call) error {
	wait, err := c.wait()
	if err != nil {
		return err
	}
	var after uint64
	if text := c.r.URL.Query().Get("after"); text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return wire.Invalid("after", "after must be the number of an event")
		}
	}
	return c.reply(s.broker.Events(c.r.Context(), c.peer, after, wait))
}

func (s *Server) reload(c *call) error {
	if err := c.nothing(); err != nil {
		return err
	}
	return c.reply(s.broker.Reload(c.r.Context(), c.peer))
}

func (s *Server) verify(c *call) error {
	if err := c.nothing(); err != nil {
		return err
	}
	return c.reply(s.broker.Verify(c.r.Context(), c.peer, c.r.PathValue("name")))
}

func (s *Server) suspend(c *call) error {
	var body wire.Suspend
	if c.r.ContentLength != 0 {
		if err := c.read(&body); err != nil {
			return err
		}
	}
	return c.reply(s.broker.Suspend(c.r.Context(), c.peer, &body))
}

func (s *Server) resume(c *call) error {
	if err := c.nothing(); err != nil {
		return err
	}
	return c.reply(s.broker.Resume(c.r.Context(), c.peer))
}

// nothing refuses a body that says anything, for calls that take none.
func (c *call) nothing() error {
	if c.r.ContentLength == 0 {
		return nil
	}
	return c.read(&struct{}{})
}

// wait reads how long the caller wants to wait for something to happen.
func (c *call) wait() (time.Duration, error) {
	text := c.r.URL.Query().Get("wait")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, wire.Invalid("wait", "wait must be a duration such as 30s")
	}
	return min(d, wire.MaxWait), nil
}
