package server

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
	"batchwarden/platform/lockmem"
)

// passed is the value of stdio with which descriptors come.
const passed = "passed"

// stdio are the descriptors that came to be the job's stdin, stdout and
// stderr; none where the launch does not say so. They are closed with the call.
func (c *call) stdio(body *wire.Launch) ([]*os.File, error) {
	switch {
	case body.Stdio != passed && len(c.files) > 0:
		return nil, wire.Invalid("stdio", fmt.Sprintf("%d descriptors came with the request, whose stdio is not %q", len(c.files), passed))
	case body.Stdio != passed:
		return nil, nil
	case len(c.files) != 3:
		return nil, wire.Invalid("stdio", fmt.Sprintf("%d descriptors came with the first octet of the request, not three: stdin, stdout and stderr", len(c.files)))
	}
	var files []*os.File
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		if err := localsock.CheckStream(c.files[i], c.ours()); err != nil {
			return nil, badFile(name, err)
		}
		files = append(files, c.files[i].File())
	}
	return files, nil
}

// ours is the name of the socket that the call came in by. Whoever reads or
// writes at such a connection is taken for who made it.
func (c *call) ours() string { return c.conn.LocalAddr().String() }

func badFile(name string, err error) *wire.Problem {
	if errors.Is(err, errors.ErrUnsupported) {
		return wire.NewProblem(wire.Unsupported, "descriptors cannot be passed on this platform")
	}
	return wire.Invalid("stdio", name+": "+err.Error())
}

// retrieveTo hands a password out through the pipe or socket that came with
// the call, and the connection goes on. No slot of locked memory is held while
// somebody waits for its reader.
func (s *Server) retrieveTo(c *call, body *wire.Retrieve) error {
	if len(c.files) != 1 {
		return wire.Invalid("", fmt.Sprintf("%d descriptors came with the request; one pipe or socket, or none", len(c.files)))
	}
	outlet, err := localsock.NewOutlet(c.files[0], c.ours())
	if err != nil {
		problem := badFile("the descriptor that came with the request", err)
		problem.Field = ""
		return problem
	}
	// Of that kind: closing it waits for nobody.
	defer func() { c.files = closed(c.files) }()
	var (
		tried bool
		about wire.Secret
	)
	retrieve := func() error {
		tried = false
		return s.broker.Retrieve(c.r.Context(), c.peer, c.r.PathValue("name"), body, func(of wire.Secret, password *lockmem.Buffer) error {
			tried, about = true, of
			return outlet.Write(password)
		})
	}
	err = retrieve()
	if errors.Is(err, localsock.ErrNoRoom) && outlet.Await(retrieveTime) {
		err = retrieve() // as if it were asked for anew: meanwhile the answer may be another
	}
	switch {
	case err == nil:
		setAbout(c.w.Header(), about)
		c.w.Header().Set("Cache-Control", "no-store")
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	case tried:
		s.log.Warn("password not delivered", "batch_user", c.r.PathValue("name"), "err", err)
		return wire.Invalid("", "the password could not be written to the descriptor that came with the request: "+err.Error())
	}
	return err
}

// closed closes the files here and now.
func closed(files []*localsock.Descriptor) []*localsock.Descriptor {
	for _, f := range files {
		_ = f.Close() // it was only written to, and that is over
	}
	return nil
}

// setAbout says what goes with a password.
func setAbout(h http.Header, about wire.Secret) {
	h.Set(wire.HeaderUsername, about.Username)
	h.Set(wire.HeaderDomain, about.Domain)
	h.Set(wire.HeaderVersion, strconv.FormatInt(about.Version, 10))
	if about.RotatesIn != nil {
		h.Set(wire.HeaderRotatesIn, strconv.FormatInt(*about.RotatesIn, 10))
	}
}
