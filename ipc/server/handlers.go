package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"batchwarden/ipc/wire"
)

func (s *Server) health(c *call) error {
	h := s.broker.Health()
	if !h.Healthy {
		return c.write(http.StatusServiceUnavailable, h)
	}
	return c.write(http.StatusOK, h)
}

func (s *Server) whoami(c *call) error {
	return c.write(http.StatusOK, s.broker.Whoami(c.r.Context(), c.peer))
}

func (s *Server) status(c *call) error {
	return c.reply(s.broker.Status(c.r.Context(), c.peer))
}

func (s *Server) authorize(c *call) error {
	explain, err := c.flag("explain")
	if err != nil {
		return err
	}
	var body wire.Authorize
	if err := c.readSoon(&body); err != nil {
		return err
	}
	return c.reply(s.broker.Authorize(c.r.Context(), c.peer, &body, explain))
}

func (s *Server) batchUsers(c *call) error {
	return c.reply(s.broker.BatchUsers(c.r.Context(), c.peer))
}

func (s *Server) batchUser(c *call) error {
	return c.reply(s.broker.BatchUser(c.r.Context(), c.peer, c.r.PathValue("name")))
}

func (s *Server) report(c *call) error {
	var body wire.Report
	if err := c.read(&body); err != nil {
		return err
	}
	return c.reply(s.broker.Report(c.r.Context(), c.peer, c.r.PathValue("name"), &body))
}

func (s *Server) launch(c *call) error {
	dry, err := c.flag("dry_run")
	if err != nil {
		return err
	}
	if dry {
		return s.dryRun(c)
	}
	for _, name := range []string{"explain", "client"} {
		if c.r.URL.RawQuery != "" && c.r.URL.Query().Has(name) {
			return wire.Invalid(name, name+" is for dry_run=1; nothing was started")
		}
	}
	var body wire.Launch
	if err := c.read(&body); err != nil {
		return err
	}
	stdio, err := c.stdio(&body)
	if err != nil {
		return err
	}
	job, again, err := s.broker.Launch(c.r.Context(), c.peer, c.conn, &body, stdio)
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/v1/jobs/"+job.ID)
	if again {
		return c.write(http.StatusOK, job)
	}
	return c.write(http.StatusCreated, job)
}

func (s *Server) jobs(c *call) error {
	only, err := c.filter()
	if err != nil {
		return err
	}
	return c.reply(s.broker.Jobs(c.r.Context(), c.peer, only))
}

// filter reads which jobs are wanted. A member that is not known is refused:
// it would be taken for one that narrows the list.
func (c *call) filter() (only wire.JobFilter, err error) {
	for name, values := range c.r.URL.Query() {
		value := values[0]
		switch name {
		case "state":
			switch value {
			case wire.Starting, wire.Running, wire.Exited, wire.Failed, wire.Lost:
				only.State = value
			default:
				return only, wire.Invalid(name, "state must be one of starting, running, exited, failed, lost")
			}
		case "since":
			if only.Since, err = time.Parse(time.RFC3339, value); err != nil {
				return only, wire.Invalid(name, "since must be a time such as 2026-11-22T03:00:00Z")
			}
		case "label":
			only.Labels = map[string]string{}
			for _, label := range values {
				key, v, ok := strings.Cut(label, "=")
				if !ok {
					return only, wire.Invalid(name, "label must be written as name=value")
				}
				only.Labels[key] = v
			}
		case "after":
			only.After = value
		case "limit":
			if only.Limit, err = strconv.Atoi(value); err != nil || only.Limit < 1 {
				return only, wire.Invalid(name, "limit must be a number of jobs")
			}
		default:
			return only, wire.Invalid(name, "a list of jobs can be narrowed by state, since, label, after and limit")
		}
	}
	return only, nil
}

func (s *Server) job(c *call) error {
	wait, err := c.wait()
	if err != nil {
		return err
	}
	return c.reply(s.broker.Job(c.r.Context(), c.peer, c.r.PathValue("id"), wait))
}

func (s *Server) signal(c *call) error {
	var body wire.Signal
	if err := c.read(&body); err != nil {
		return err
	}
	return c.reply(s.broker.Signal(c.r.Context(), c.peer, c.r.PathValue("id"), &body))
}

func (s *Server) sync(c *call) error {
	if err := c.nothing(); err != nil {
		return err
	}
	return c.reply(s.broker.Sync(c.r.Context(), c.peer))
}

// reply writes what a call to the broker returned, unless it is an error.
func (c *call) reply(v any, err error) error {
	if err != nil {
		return err
	}
	return c.write(http.StatusOK, v)
}

// flag reads a query member that is 1, 0 or absent.
func (c *call) flag(name string) (bool, error) {
	if c.r.URL.RawQuery == "" {
		return false, nil
	}
	switch c.r.URL.Query().Get(name) {
	case "", "0":
		return false, nil
	case "1":
		return true, nil
	}
	return false, wire.Invalid(name, name+" must be 1 or 0")
}

// number reads a query member that is a count of octets, or absent.
func (c *call) number(name string, absent int64) (int64, error) {
	text := c.r.URL.Query().Get(name)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, wire.Invalid(name, name+" must be a number of octets")
	}
	return n, nil
}
