package server

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
)

// route is one call of the API. Who may make it is the broker's to say; what
// every call has in common is done by handle.
type route struct {
	pattern string
	body    int64 // most octets of a body; 0: the call has none
	answer  func(*Server, *call) error
}

var table = []route{
	{"GET /v1/health", 0, (*Server).health},
	{"GET /v1/whoami", 0, (*Server).whoami},
	{"GET /v1/status", 0, (*Server).status},
	{"POST /v1/authorize", wire.MaxSmall, (*Server).authorize},
	{"GET /v1/batch-users", 0, (*Server).batchUsers},
	{"GET /v1/batch-users/{name}", 0, (*Server).batchUser},
	{"POST /v1/batch-users/{name}/retrieve", wire.MaxSmall, (*Server).retrieve},
	{"POST /v1/batch-users/{name}/report", wire.MaxSmall, (*Server).report},
	{"POST /v1/batch-users/{name}/verify", wire.MaxSmall, (*Server).verify},
	{"POST /v1/jobs", wire.MaxBody, (*Server).launch},
	{"GET /v1/jobs", 0, (*Server).jobs},
	{"GET /v1/jobs/{id}", 0, (*Server).job},
	{"DELETE /v1/jobs/{id}", 0, (*Server).forget},
	{"GET /v1/jobs/{id}/output/{stream}", 0, (*Server).output},
	{"POST /v1/jobs/{id}/signal", wire.MaxSmall, (*Server).signal},
	{"GET /v1/events", 0, (*Server).events},
	{"POST /v1/suspend", wire.MaxSmall, (*Server).suspend},
	{"POST /v1/resume", wire.MaxSmall, (*Server).resume},
	{"POST /v1/sync", wire.MaxSmall, (*Server).sync},
	{"POST /v1/reload", wire.MaxSmall, (*Server).reload},
	{"POST /v1/rekey", wire.MaxSmall, (*Server).rekey},
	{"GET /metrics", 0, (*Server).metrics},
	{"GET /v1/log-level", 0, (*Server).logLevel},
	{"POST /v1/log-level", wire.MaxSmall, (*Server).setLogLevel},
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	for _, r := range table {
		mux.HandleFunc(r.pattern, s.handle(strict(r)))
	}
	mux.HandleFunc("/", s.handle(route{"/", wire.MaxBody, func(_ *Server, c *call) error {
		return wire.NewProblem(wire.RequestNotFound, "there is no "+c.r.Method+" "+c.r.URL.Path)
	}}))
	return mux
}

// call is one request on an attested connection.
type call struct {
	*attested
	w     http.ResponseWriter
	r     *http.Request
	files []*localsock.Descriptor // that came with its first octet; closed when it has been answered
}

// begin takes the descriptors that came with the call.
func (c *call) begin() {
	if c.requests != nil {
		c.files = c.requests.Begin()
	}
}

// end closes what came with the call and was not used, and reads what is left of its body, so that whatever comes on
// the connection afterwards is the next call's.
func (c *call) end() {
	if c.requests == nil {
		return
	}
	c.requests.Discard(c.files) // somewhere else: that can take as long as whoever serves the files likes
	// A caller who asks before it sends its body is not told to send it now.
	if c.r.ContentLength != 0 && c.r.Header.Get("Expect") == "" {
		_, _ = io.Copy(io.Discard, c.r.Body) // what cannot be read ends the connection
	}
	c.requests.End()
}

// extend gives the answer d from now to reach the caller.
func (c *call) extend(d time.Duration) error {
	return http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(d))
}

// handle does what all calls need: a caller whose identity is known, a bound
// on time and size, and a problem document for every error.
func (s *Server) handle(r route) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		c := &call{attested: req.Context().Value(connKey{}).(*attested), w: w, r: req}
		c.begin()
		defer c.end()
		if c.err != nil {
			s.log.Warn("caller not attested", "err", c.err)
			s.fail(c, wire.NewProblem(wire.CallerUnknown, "the system could not attest this connection"))
			return
		}
		if c.over {
			w.Header().Set("Connection", "close")
			s.fail(c, wire.NewProblem(wire.Overloaded, "this user has too many connections open"))
			return
		}
		req.Body = http.MaxBytesReader(w, req.Body, r.body)
		if err := s.serve(c, r); err != nil {
			s.fail(c, err)
		}
	}
}

// queries are the members that a call's query may have.
var queries = map[string][]string{
	"POST /v1/authorize":                {"explain"},
	"POST /v1/jobs":                     {"dry_run", "explain", "client"},
	"GET /v1/jobs":                      {"state", "since", "label", "after", "limit"},
	"GET /v1/jobs/{id}":                 {"wait"},
	"GET /v1/jobs/{id}/output/{stream}": {"offset", "limit", "tail", "follow", "subject", "object"},
	"GET /v1/events":                    {"after", "wait"},
}

// strict is the route with its query looked at first.
func strict(r route) route {
	answer, known := r.answer, queries[r.pattern]
	r.answer = func(s *Server, c *call) error {
		if err := c.query(known); err != nil {
			return err
		}
		return answer(s, c)
	}
	return r
}

// query refuses members that the call does not know: whoever gave one would take it to matter.
func (c *call) query(known []string) error {
	if c.r.URL.RawQuery == "" {
		return nil
	}
	members, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return wire.Invalid("", "the query cannot be read")
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !slices.Contains(known, name) {
			return wire.Invalid(name, fmt.Sprintf("%q is not a member of this call's query", name))
		}
	}
	return nil
}

// unlimited are the calls that a client may make however busy he is: they tell him how things are.
var unlimited = map[string]bool{"GET /v1/health": true, "GET /v1/whoami": true}

// serve answers a call within what its client may ask at once.
func (s *Server) serve(c *call, r route) error {
	if !unlimited[r.pattern] {
		leave, err := s.broker.Admit(c.r.Context(), c.peer)
		if err != nil {
			return err
		}
		defer leave()
	}
	return r.answer(s, c)
}

// fail answers with the problem document. An error that is none is ours: the
// caller learns nothing of it.
func (s *Server) fail(c *call, err error) {
	var problem *wire.Problem
	if !errors.As(err, &problem) {
		s.log.Error("request failed", "path", c.r.URL.Path, "err", err)
		problem = wire.NewProblem(wire.Internal, "")
	}
	if problem.Status == http.StatusTooManyRequests || problem.Status == http.StatusServiceUnavailable {
		problem.RetryAfter = max(1, problem.RetryAfter)
		c.w.Header().Set("Retry-After", strconv.Itoa(problem.RetryAfter))
	}
	c.w.Header().Set("Content-Type", wire.ContentType)
	if err := c.write(problem.Status, problem); err != nil {
		s.log.Error("problem document not sent", "err", err)
	}
}
