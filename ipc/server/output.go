package server

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"batchwarden/ipc/wire"
)

const (
	chunk    = 64 << 10
	followed = 200 * time.Millisecond // how often a followed file is looked at
)

// span is which part of a job's output is wanted.
type span struct {
	offset, limit int64
	follow        bool
}

// output answers with what a job has written: raw octets from offset (or the
// last tail of them), at most limit; with follow until the job has ended.
func (s *Server) output(c *call) error {
	id, stream := c.r.PathValue("id"), c.r.PathValue("stream")
	if stream != "stdout" && stream != "stderr" {
		return wire.NewProblem(wire.RequestNotFound, "a job's output is stdout or stderr")
	}
	part, tail, err := c.span()
	if err != nil {
		return err
	}
	subject, object, err := c.subject()
	if err != nil {
		return err
	}
	file, err := s.broker.Output(c.r.Context(), c.peer, id, stream, subject, object)
	if err != nil {
		return err
	}
	defer file.Close() // read only
	if tail > 0 {
		info, err := file.Stat()
		if err != nil {
			return err
		}
		part.offset = max(0, info.Size()-tail)
	}
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("Batchwarden-Offset", strconv.FormatInt(part.offset, 10))
	c.w.WriteHeader(http.StatusOK)
	if err := s.stream(c, id, file, part); err != nil {
		s.log.Debug("output not sent whole", "job", id, "err", err)
	}
	return nil
}

func (c *call) span() (part span, tail int64, err error) {
	if part.offset, err = c.number("offset", 0); err != nil {
		return part, 0, err
	}
	if part.limit, err = c.number("limit", 1<<62); err != nil {
		return part, 0, err
	}
	if tail, err = c.number("tail", 0); err != nil {
		return part, 0, err
	}
	part.follow, err = c.flag("follow")
	return part, tail, err
}

// subject reads for whom the output is asked: query members that hold JSON.
func (c *call) subject() (subject wire.Subject, object json.RawMessage, err error) {
	query := c.r.URL.Query()
	if text := query.Get("subject"); text != "" {
		if err := parse(strings.NewReader(text), &subject); err != nil {
			return subject, nil, wire.Invalid("subject", "the query member subject is not a JSON subject: "+err.Detail)
		}
	}
	if text := query.Get("object"); text != "" {
		if object = json.RawMessage(text); !json.Valid(object) {
			return subject, nil, wire.Invalid("object", "the query member object is not JSON")
		}
	}
	return subject, object, nil
}

// stream sends the part. A followed file is read once more after the job was
// seen to have ended, so that its last words are not lost.
func (s *Server) stream(c *call, id string, file *os.File, part span) error {
	buf := make([]byte, chunk)
	for last := !part.follow; ; {
		sent, err := c.copyFrom(file, &part, buf)
		switch {
		case err != nil || part.limit == 0:
			return err
		case sent:
			continue
		case last:
			return nil
		}
		job, err := s.broker.Job(c.r.Context(), c.peer, id, 0)
		if err != nil {
			return err
		}
		if job.Done() {
			last = true
			continue
		}
		if err := c.extend(answerTime); err != nil { // a job that says nothing for long is still followed
			return err
		}
		select {
		case <-c.r.Context().Done():
			return c.r.Context().Err()
		case <-time.After(followed):
		}
	}
}

// copyFrom sends one chunk and reports whether there was one.
func (c *call) copyFrom(file *os.File, part *span, buf []byte) (bool, error) {
	n, err := file.ReadAt(buf[:min(int64(len(buf)), part.limit)], part.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if n == 0 {
		return false, nil
	}
	part.offset += int64(n)
	part.limit -= int64(n)
	if err := c.extend(answerTime); err != nil {
		return false, err
	}
	if _, err := c.w.Write(buf[:n]); err != nil {
		return false, err
	}
	return true, http.NewResponseController(c.w).Flush()
}
