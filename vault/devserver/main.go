// Command devserver runs a real OpenBao server, which speaks Vault's API, for
// tests and the demo: one listener with TLS, storage in memory or in a
// directory, and only the engines that batchwarden meets. It is no production
// server: it holds its own unseal key.
//
// It says "ready <address>" on standard output once it answers. "devserver proxy" is OpenBao's local proxy instead.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	vaulthttp "github.com/openbao/openbao/http"
	"github.com/openbao/openbao/internalshared/configutil"
	"github.com/openbao/openbao/internalshared/listenerutil"
	"github.com/openbao/openbao/vault"
)

// rootTokenEnv names the variable that may hold the root token. An argument
// would show it to every user of the machine.
const rootTokenEnv = "BATCHWARDEN_DEVSERVER_ROOT_TOKEN"

type options struct {
	listen, cert, key string
	dir, keys         string
	rootTokenFile     string
	requests          string
	level             string
	sealed            bool
	parentDeath       bool
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "`address` to listen on, TLS only")
	flag.StringVar(&o.cert, "cert", "", "server certificate `file` (PEM)")
	flag.StringVar(&o.key, "key", "", "server key `file` (PEM)")
	flag.StringVar(&o.dir, "dir", "", "keep everything in this `directory`; empty: in memory")
	flag.StringVar(&o.keys, "keys", "", "`file` for unseal key and root token (default DIR/keys.json; in memory: none)")
	flag.StringVar(&o.rootTokenFile, "root-token-file", "", "`file` with the root token to set up (else $"+rootTokenEnv+", else a random one)")
	flag.StringVar(&o.requests, "requests", "", "append method and path of every request to this `file`")
	flag.StringVar(&o.level, "log", "error", "log `level`")
	flag.BoolVar(&o.sealed, "sealed", false, "stay sealed at start")
	flag.BoolVar(&o.parentDeath, "parent-death", false, "end when standard input does")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.parentDeath || flag.Arg(0) == "proxy" {
		// The write end of this pipe is the parent's alone, so that it ends with
		// the parent however that dies. PR_SET_PDEATHSIG would watch a thread.
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // an error ends it just as the end of input does
			cancel()
		}()
	}
	serve := func() error { return run(ctx, o) }
	if flag.Arg(0) == "proxy" {
		serve = func() error { return proxy(ctx, flag.Args()[1:]) }
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "devserver:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, o options) error {
	if o.cert == "" || o.key == "" {
		return errors.New("--cert and --key are required")
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return err
	}
	token, err := chosenRootToken(o.rootTokenFile)
	if err != nil {
		return err
	}
	data := ""
	if o.dir != "" {
		data = filepath.Join(o.dir, "data")
		if err := os.MkdirAll(data, 0o700); err != nil {
			return err
		}
		if o.keys == "" {
			o.keys = filepath.Join(o.dir, "keys.json")
		}
	}
	log := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.LevelFromString(o.level)})
	store, err := openStore(data, log)
	if err != nil {
		return err
	}
	core, err := newCore(store, log, o.level)
	if err != nil {
		return err
	}
	defer core.Shutdown()
	if err := open(core, o.keys, token, o.sealed); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{Type: "tcp", Address: ln.Addr().String()},
		AllListeners:   []listenerutil.Listener{},
	})
	if o.requests != "" {
		f, err := os.OpenFile(o.requests, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return errors.Join(err, ln.Close())
		}
		defer f.Close()
		handler = record(f, handler)
	}
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          stdlog.New(io.Discard, "", 0), // handshakes that tests break on purpose
	}
	ended := make(chan error, 1)
	go func() {
		ended <- srv.Serve(tls.NewListener(ln, &tls.Config{
			Certificates: []tls.Certificate{pair},
			ClientAuth:   tls.RequestClientCert, // for the cert method, which checks it itself
			NextProtos:   []string{"h2", "http/1.1"},
			MinVersion:   tls.VersionTLS12,
		}))
	}()
	fmt.Printf("ready https://%s\n", ln.Addr())
	select {
	case <-ctx.Done():
		err = srv.Close()
		<-ended
	case err = <-ended:
	}
	return err
}

// record writes one line for each request before it is served: method and
// path, never a header or a body.
func record(w io.Writer, next http.Handler) http.Handler {
	var mu sync.Mutex // guards w: one line at a time
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		fmt.Fprintf(w, "%s %s\n", r.Method, r.URL.RequestURI())
		mu.Unlock()
		next.ServeHTTP(rw, r)
	})
}

func chosenRootToken(file string) (string, error) {
	if file == "" {
		return os.Getenv(rootTokenEnv), nil
	}
	b, err := os.ReadFile(file)
	return strings.TrimSpace(string(b)), err
}
