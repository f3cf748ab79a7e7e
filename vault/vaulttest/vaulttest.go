// Package vaulttest runs a real Vault-compatible server on this machine, for
// tests and the demo, and sets it up as an operator would.
//
// The server is vault/devserver: an OpenBao, on TLS with a CA made at run time.
// It ends with the process that started it, however that ends.
package vaulttest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

// Options of Start. The zero value is a server in a new temporary directory.
type Options struct {
	Dir    string    // holds everything of the server; empty: a temporary one, removed by Close
	Binary string    // of devserver; empty: found or built by Binary
	Sealed bool      // stays sealed at start
	Log    io.Writer // the server's own messages; nil: none
}

// Server is a server that runs, or ran and can run again.
type Server struct {
	Address   string // https, the same over every Restart
	CAFile    string
	RootToken string
	Dir       string

	opt       Options
	ours      bool // Dir is ours to remove
	unsealKey string
	cmd       *exec.Cmd
	stdin     io.Closer // its end is the server's
	ended     chan error
	root      *api.Client
	namespace string     // of every client; empty: the root's
	issuers   *authority // of machines' certificates and JWTs
}

const (
	startTime = 30 * time.Second
	stopTime  = 10 * time.Second
)

// Start returns once the server answers. It goes on after ctx ends; Close ends it.
func Start(ctx context.Context, opt Options) (*Server, error) {
	s := &Server{opt: opt, Dir: opt.Dir}
	if opt.Binary == "" {
		bin, err := Binary(ctx)
		if err != nil {
			return nil, err
		}
		s.opt.Binary = bin
	}
	if s.Dir == "" {
		dir, err := os.MkdirTemp("", "vaulttest-")
		if err != nil {
			return nil, err
		}
		s.Dir, s.ours = dir, true
	}
	s.issuers = new(authority)
	if err := s.setUp(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("vaulttest: %w", err), s.Close())
	}
	return s, nil
}

func (s *Server) setUp(ctx context.Context) error {
	if err := makeCertificates(s.Dir); err != nil {
		return err
	}
	s.CAFile = filepath.Join(s.Dir, caFile)
	if err := s.start(ctx, "127.0.0.1:0"); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(s.Dir, "keys.json"))
	if err != nil {
		return err
	}
	var k struct {
		UnsealKey string `json:"unseal_key"`
		RootToken string `json:"root_token"`
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return err
	}
	s.RootToken, s.unsealKey = k.RootToken, k.UnsealKey
	s.root, err = s.Client(s.RootToken)
	return err
}

// Close stops the server and removes what Start made.
func (s *Server) Close() error {
	err := s.Stop()
	if s.ours {
		err = errors.Join(err, os.RemoveAll(s.Dir))
	}
	return err
}

// Stop ends the server, as a machine that goes away does. Stopped already is no error.
func (s *Server) Stop() error {
	if s.cmd == nil {
		return nil
	}
	defer func() { s.cmd = nil }()
	closed := s.stdin.Close()
	select {
	case err := <-s.ended:
		return errors.Join(err, closed)
	case <-time.After(stopTime):
		killed := s.cmd.Process.Kill()
		return errors.Join(fmt.Errorf("vaulttest: the server did not end within %v", stopTime), killed, <-s.ended)
	}
}

// Restart stops the server if it runs and starts it on the same address.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.start(ctx, strings.TrimPrefix(s.Address, "https://"))
}

// start runs the server until it says that it answers. Until then ctx bounds it.
func (s *Server) start(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	token := s.RootToken
	if token == "" {
		token = chosenToken(s.Dir)
	}
	args := []string{"--parent-death", "--listen", listen, "--dir", s.Dir, "--requests", s.requestsFile(),
		"--cert", filepath.Join(s.Dir, certFile), "--key", filepath.Join(s.Dir, keyFile)}
	if s.opt.Sealed {
		args = append(args, "--sealed")
	}
	cmd := exec.Command(s.opt.Binary, args...)
	cmd.Env = []string{"BATCHWARDEN_DEVSERVER_ROOT_TOKEN=" + token}
	cmd.Stderr = s.opt.Log
	var failure strings.Builder
	if cmd.Stderr == nil {
		cmd.Stderr = &failure
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ready := make(chan string, 1)
	ended := make(chan error, 1)
	go func() { // ends with the server
		line, _ := bufio.NewReader(stdout).ReadString('\n') // what is missing shows below
		ready <- strings.TrimSpace(line)
		_, _ = io.Copy(io.Discard, stdout) // an error is an end too
		ended <- cmd.Wait()
	}()
	give := func(err error) error {
		_ = stdin.Close()      // its end is near
		_ = cmd.Process.Kill() // it may be gone already
		return errors.Join(err, <-ended)
	}
	select {
	case line := <-ready:
		address, ok := strings.CutPrefix(line, "ready ")
		if !ok {
			_ = stdin.Close() // it ended already
			return errors.Join(fmt.Errorf("the server did not start: %s", strings.TrimSpace(failure.String())), <-ended)
		}
		s.Address, s.cmd, s.stdin, s.ended = address, cmd, stdin, ended
		return nil
	case <-ctx.Done():
		return give(fmt.Errorf("the server did not answer: %w", ctx.Err()))
	}
}

// chosenToken is the root token that a directory was set up with, or a new one.
func chosenToken(dir string) string {
	var k struct {
		RootToken string `json:"root_token"`
	}
	if b, err := os.ReadFile(filepath.Join(dir, "keys.json")); err == nil && json.Unmarshal(b, &k) == nil {
		return k.RootToken
	}
	return "root-" + rand.Text()
}

// Client returns a client of the server that has the token and trusts the
// test's CA. Nothing in the environment changes it.
func (s *Server) Client(token string) (*api.Client, error) {
	conf := api.DefaultConfig()
	if conf.Error != nil {
		return nil, conf.Error
	}
	conf.Address, conf.AgentAddress = s.Address, ""
	conf.MaxRetries = 0
	conf.Timeout = 20 * time.Second
	if t, ok := conf.HttpClient.Transport.(*http.Transport); ok {
		t.Proxy = nil
	}
	if err := conf.ConfigureTLS(&api.TLSConfig{CACert: s.CAFile}); err != nil {
		return nil, err
	}
	c, err := api.NewClient(conf)
	if err != nil {
		return nil, err
	}
	c.ClearNamespace()
	if s.namespace != "" {
		c.SetNamespace(s.namespace)
	}
	c.SetToken(token)
	return c, nil
}

// Root is the root token's client.
func (s *Server) Root() *api.Client { return s.root }

// Seal seals the server.
func (s *Server) Seal(ctx context.Context) error { return s.root.Sys().SealWithContext(ctx) }

// Unseal opens a sealed server.
func (s *Server) Unseal(ctx context.Context) error {
	st, err := s.root.Sys().UnsealWithContext(ctx, s.unsealKey)
	if err == nil && st.Sealed {
		err = errors.New("vaulttest: still sealed")
	}
	return err
}

// Requests returns method and path of every request so far, in order.
func (s *Server) Requests() ([]string, error) {
	b, err := os.ReadFile(s.requestsFile())
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n"), nil
}

func (s *Server) requestsFile() string { return filepath.Join(s.Dir, "requests.log") }
