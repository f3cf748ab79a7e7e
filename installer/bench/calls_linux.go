package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
	"batchwarden/vault/vaulttest"
)

// callsOptions are those of a bed that calls are measured on: beside the usual
// client there are one who asks more than he may, one whose program has to be
// known, and one whose program's sum has.
func callsOptions() (testbed.Options, error) {
	self, err := os.Readlink("/proc/self/exe") // what dials is this program
	if err != nil {
		return testbed.Options{}, err
	}
	text, err := os.ReadFile(self)
	sum := sha256.Sum256(text)
	entry := func(match, more string) string {
		return "    match: {user: " + match + "}\n    realms: [opcon]\n    may: [authorize]\n    subjects: {users: [\"*\"]}\n    batch_users: [\"*\"]\n" + more
	}
	return testbed.Options{OnDisk: true, Edit: func(yaml string) string {
		return strings.Replace(yaml, "operators:", "  - name: flood\n"+entry("bw-stranger", "    rate: 100/s\n    concurrent: 16\n")+
			"  - name: program\n"+entry("bw-payroll, exe: "+self, "")+
			"  - name: summed\n"+entry("bw-reports, sha256: "+hex.EncodeToString(sum[:]), "")+"operators:", 1)
	}}, err
}

// effort is how much is measured.
type effort struct {
	rounds, per int           // of one caller alone
	turns       int           // of many callers, each
	turn        time.Duration // so long
	callers     int
	idle        int // connections
	fresh       int // connections that are looked at
}

var (
	fullEffort  = effort{rounds: 150, per: 20, turns: 12, turn: 300 * time.Millisecond, callers: 64, idle: 5000, fresh: 300}
	quickEffort = effort{rounds: 2, per: 5, turns: 1, turn: 50 * time.Millisecond, callers: 8, idle: 50, fresh: 5}
)

// calls is a bed and what is compared on it.
type calls struct {
	*testbed.Bed
	effort
	bounds
	out     io.Writer
	closers []func() error

	question                              []byte // an authorization, as it goes over the wire
	raw                                   func() (*figure, error)
	bare, authorize, toPipe, toSocket, kv kind
	barePID                               int
	bareSocket                            string
}

// A kind of call can be made by any number of callers, each on a kept
// connection of its own.
type kind struct {
	name               string
	dial               func(context.Context) (*net.UnixConn, error)
	method, path, body string
	want               int
	read               func(body []byte) error
	pass               func() (r, w *os.File, err error) // what is passed with each request, which the password comes through; nil: nothing
}

// measureCalls measures what one request costs, and what many and idle callers
// do to it, against a bare net/http handler and OpenBao's own local proxy.
func measureCalls(b *testbed.Bed, e effort, out io.Writer) (found bounds, err error) {
	c := &calls{Bed: b, effort: e, out: out}
	defer func() {
		for _, stop := range slices.Backward(c.closers) {
			err = errors.Join(err, stop())
		}
	}()
	for _, step := range []func() error{c.kinds, c.alone, c.crowd, c.attest, c.flood, c.idling} {
		if err := step(); err != nil {
			return c.bounds, err
		}
	}
	return c.bounds, nil
}

// kinds starts the references.
func (c *calls) kinds() error {
	dir := filepath.Join(c.Root, "calls")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	question := marshal(wire.Authorize{Realm: testbed.Realm, Subject: wire.Subject{User: testbed.User}, BatchUser: "payroll"})
	wanted := marshal(wire.Retrieve{Realm: testbed.Realm, Subject: wire.Subject{User: testbed.User}})
	c.question = handwritten("POST", "/v1/authorize", question)
	raw, stop, err := rawRoundTrip(dir)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, stop)
	c.raw = func() (*figure, error) { return raw, nil }
	bare, pid, stop, err := server("http", dir)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, stop)
	c.bareSocket, c.barePID = bare, pid
	unixSocket := func(path string) func(context.Context) (*net.UnixConn, error) {
		return func(context.Context) (*net.UnixConn, error) {
			return net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: path})
		}
	}
	daemon := func(ctx context.Context) (*net.UnixConn, error) { return c.Dial(ctx, c.Accounts.LSAM) }
	c.bare = kind{name: "bare net/http handler", dial: unixSocket(bare), method: "POST", path: "/v1/authorize", body: question, want: 200, read: discard}
	c.authorize = kind{name: "authorize", dial: daemon, method: "POST", path: "/v1/authorize", body: question, want: 200, read: allowed}
	c.toPipe = kind{name: "retrieve to a passed pipe", dial: daemon, method: "POST", path: "/v1/batch-users/payroll/retrieve", body: wanted, want: 204, read: discard, pass: pipe}
	c.toSocket = c.toPipe
	c.toSocket.name, c.toSocket.pass = "retrieve to a passed socket", socketPair
	proxy, stop, err := c.proxy(dir)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, stop)
	c.kv = kind{name: "KV v2 read through OpenBao's proxy", dial: unixSocket(proxy), method: "GET", want: 200, read: secret,
		path: "/v1/" + vaulttest.Mount + "/data/" + testbed.Scope + "/batch_users/payroll"}
	return nil
}

func discard([]byte) error { return nil }

// allowed reads a decision.
func allowed(body []byte) error {
	var d wire.Decision
	if err := json.Unmarshal(body, &d); err != nil {
		return err
	}
	if !d.Allowed {
		return fmt.Errorf("denied: %s", d.Code)
	}
	return nil
}

// secret reads what OpenBao's proxy answers.
func secret(body []byte) error {
	var got struct {
		Data struct {
			Data struct {
				Password string `json:"password"`
			} `json:"data"`
		} `json:"data"`
	}
	err := json.Unmarshal(body, &got)
	if err == nil && got.Data.Data.Password == "" {
		err = errors.New("no password came through the proxy")
	}
	return err
}

// proxy is OpenBao's local proxy, logged in as the machine by AppRole.
func (c *calls) proxy(dir string) (socket string, stop func() error, err error) {
	bin, err := vaulttest.Binary(context.Background())
	if err != nil {
		return "", nil, err
	}
	socket = filepath.Join(dir, "proxy.sock")
	_, stop, err = ready(bin, nil, "proxy", "-address", c.Vault.Address, "-ca", c.Vault.CAFile,
		"-role-id", c.Etc+"/role_id", "-secret-id", c.Etc+"/secret_id", "-listen", socket)
	return socket, stop, err
}

// A caller makes calls of one kind over one connection, and reads what comes through what it passes.
type caller struct {
	kind
	conn      *localsock.Bringing
	near, far *os.File // far is passed; nil when nothing is
	room      []byte
}

func (k kind) caller() (c *caller, err error) {
	c = &caller{kind: k, room: make([]byte, 4096)}
	if k.pass != nil {
		if c.near, c.far, err = k.pass(); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := k.dial(ctx)
	if err != nil {
		c.stop()
		return nil, err
	}
	c.conn = localsock.WithFiles(conn)
	return c, nil
}

func (c *caller) stop() {
	if c.conn != nil {
		_ = c.conn.Close() // nothing is lost
	}
	if c.far != nil {
		_, _ = c.near.Close(), c.far.Close()
	}
}

// usual makes a call as agents do, by an HTTP client.
func (c *caller) usual() (once func() error) {
	taken := false
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		if taken {
			return nil, errors.New("the connection was not kept")
		}
		taken = true
		return c.conn, nil
	}}}
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, c.method, "http://batchwarden"+c.path, strings.NewReader(c.body))
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/json")
		if c.far != nil {
			c.conn.Bring(c.far)
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		return c.came(answer.StatusCode, body)
	}
}

// came checks what came.
func (c *caller) came(status int, body []byte) error {
	if status != c.want {
		return fmt.Errorf("%s: status %d, want %d: %.4096s", c.path, status, c.want, body)
	}
	if err := c.read(body); err != nil || c.near == nil {
		return err
	}
	n, err := c.near.Read(c.room)
	if err == nil && !strings.HasPrefix(string(c.room[:n]), "pw-") {
		err = errors.New("no password came")
	}
	return err
}

// pipe and socketPair are as programs in C and Python make them, which wait:
// os.Pipe's do not, and who receives them has to look after them.
func pipe() (r, w *os.File, err error) {
	var pair [2]int
	if err := syscall.Pipe2(pair[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	return os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "far"), nil
}

func socketPair() (r, w *os.File, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "far"), nil
}

// figureOf is a kind, called by one caller.
func (c *calls) figureOf(k kind) (*figure, error) {
	one, err := k.caller()
	if err != nil {
		return nil, err
	}
	c.closers = append(c.closers, func() error { one.stop(); return nil })
	return &figure{name: k.name, per: c.per, once: one.usual()}, nil
}

// alone compares one caller's calls.
func (c *calls) alone() error {
	raw, err := c.raw()
	if err != nil {
		return err
	}
	raw.per = c.per
	var figures []*figure
	for _, k := range []kind{c.bare, c.authorize, c.toPipe, c.toSocket, c.kv} {
		f, err := c.figureOf(k)
		if err != nil {
			return err
		}
		figures = append(figures, f)
	}
	bare, kv := figures[0], figures[4]
	t := table{groups: []group{{reference: raw, figures: []*figure{repeated(bare)}}, {reference: bare, figures: figures[1:]}}}
	if err := (rounds{number: c.rounds}).run(t.all()); err != nil {
		return err
	}
	if err := t.print(c.out); err != nil {
		return err
	}
	for _, f := range figures[1:4] {
		c.add(f.name+", to a bare handler", over(f, bare), 1.5, "times")
	}
	for _, f := range figures[2:4] {
		c.add("five times a "+f.name+", to one read through OpenBao's proxy", 5*over(f, kv), 1, "times")
	}
	return nil
}

// over is the ratio of medians.
func over(f, to *figure) float64 { return float64(f.quantile(0.5)) / float64(to.quantile(0.5)) }

// crowd compares what many callers get who all ask at once, each kind in its
// turn.
func (c *calls) crowd() error {
	kinds := []kind{c.bare, c.authorize, c.toPipe, c.toSocket, c.kv}
	all := make([]*crowd, len(kinds))
	for i, k := range kinds {
		var err error
		if all[i], err = c.gather(k); err != nil {
			return err
		}
		defer all[i].stop()
	}
	for range c.turns {
		for _, w := range all {
			if err := w.ask(c.turn); err != nil {
				return err
			}
		}
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d callers\tp50\tp99\tp99/p50\trequests/s\n", c.callers)
	for _, x := range all {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%.2f\t%.0f\n", x.name, micro(x.quantile(0.5)), micro(x.quantile(0.99)), x.spread(), x.rate())
	}
	fmt.Fprintln(w, "\t\t\t\t")
	if err := w.Flush(); err != nil {
		return err
	}
	bare, kv := all[0], all[4]
	for _, x := range all[1:4] {
		c.add(fmt.Sprintf("p99/p50 of %s by %d callers, to a bare handler's", x.name, c.callers), x.spread()/bare.spread(), 1.5, "times")
	}
	for _, x := range all[1:4] {
		c.add(fmt.Sprintf("fifteen times the proxy's requests/s at %d callers, to those of %s", c.callers, x.name), 15*kv.rate()/x.rate(), 1, "times")
	}
	return nil
}

// kept is a connection on which requests are written and answers read by hand:
// nothing is on this side of it but a descriptor.
type kept struct {
	conn net.Conn
	room []byte
}

func (k *kept) ask(request []byte) (time.Duration, error) {
	begun := time.Now()
	if _, err := k.conn.Write(request); err != nil {
		return 0, err
	}
	n, err := k.conn.Read(k.room)
	took := time.Since(begun)
	if err == nil && !bytes.HasPrefix(k.room[:n], []byte("HTTP/1.1 200")) {
		err = fmt.Errorf("answer %q", k.room[:n])
	}
	return took, err
}
