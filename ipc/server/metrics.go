package server

import "net/http"

// metrics answers in Prometheus's text format.
func (s *Server) metrics(c *call) error {
	page, err := s.broker.Metrics(c.r.Context(), c.peer)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	c.w.WriteHeader(http.StatusOK)
	_, _ = c.w.Write(page) // a caller that has gone cannot be told that he has
	return nil
}
